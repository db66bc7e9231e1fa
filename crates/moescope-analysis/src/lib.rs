//! Metrics, comparisons and findings over recorded runs.
//!
//! ```text
//! Run (moescope-trace) -> RunData (dense arrays) -> Study (shared counts, resamples)
//!     -> one Vec<MetricRow> per metric -> Analysis -> findings
//! ```
//!
//! Letters used in the docs: T tokens, E experts of a layer, k experts per token (top_k),
//! c_e tokens that selected expert e, S sequences, G groups of sequences, R bootstrap resamples.
//!
//! ```no_run
//! use moescope_analysis::{Options, analyze_all, findings};
//! use moescope_trace::Run;
//!
//! let runs = [Run::open("runs/base")?, Run::open("runs/new")?];
//! let (analyses, comparisons) = analyze_all(&runs, &Options::default())?;
//! for finding in findings(&analyses, &comparisons) {
//!     println!("{}", finding.headline);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Chance levels** are what uniform, independent routing would give: every token takes k
//! distinct experts, each set equally likely. Statistics that are biased by sampling noise (a
//! maximum, a Gini coefficient, an entropy) have as chance level their expectation at the T of the
//! run, so a value can be read against it at any T.
//!
//! **Intervals** are 95 % bootstrap intervals over sequences, never over tokens: tokens of one
//! sequence are not independent. See [`bootstrap`]. With fewer than [`bootstrap::MIN_UNITS`]
//! sequences there is none.
//!
//! A new metric is one file in `metrics/`, of its name, and one line in [`METRICS`].

mod analysis;
pub mod bootstrap;
pub mod chance;
mod clustering;
mod compare;
mod counts;
mod data;
mod error;
mod excerpt;
mod findings;
pub mod gate;
mod groups;
pub mod history;
mod load;
mod metric;
mod metrics;
mod names;
mod occurrences;
mod options;
mod pairs;
mod parallel;
mod ratio;
pub mod rng;
mod row;
mod runs;
mod simd;
pub mod simulate;
pub mod stats;
mod structure;
mod study;
mod summary;
pub mod synthetic;
mod table;
mod texts;
mod transitions;

pub use analysis::{
    Absent, Analysis, Matrix, analyze, analyze_all, analyze_chosen, analyze_data, analyze_metrics,
};
pub use clustering::clustered_order;
pub use compare::{Comparison, Refusal, TokenWise, compare, compare_across};
pub use counts::LayerCounts;
pub use data::{LayerData, NO_EXPERT, RunData, Sequence, StepSeries, TokenData};
pub use error::AnalysisError;
pub use excerpt::{Excerpt, ExcerptSequence};
pub use findings::{Finding, findings};
pub use groups::Groups;
pub use metric::{Group, Metric, Need};
pub use metrics::{METRICS, Specialist, Specialists, balance_of, jensen_shannon};
pub use names::distinct_names;
pub use options::Options;
pub use ratio::{Estimate, RatioSums, RatioTable};
pub use row::{Index, MetricRow};
pub use structure::{Coactivation, Pruning, Structure, Transitions};
pub use study::{Scope, Study};
pub use summary::{Summary, summarise};
pub use table::{COMPARISON_COLUMNS, TABLE_COLUMNS, write_comparison_parquet, write_parquet};
pub use texts::TokenTexts;
