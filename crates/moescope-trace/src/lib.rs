//! The run directory: what moescope measures once and reads many times.
//!
//! ```text
//! RUN/
//!   manifest.json                what ran, on what, and how              manifest.rs
//!   tokens/part-00000.parquet    one row per token                       \
//!   routing/part-00000.parquet   one row per token and MoE layer          } schema.rs, columns.rs
//!   steps/part-00000.parquet     one row per forward pass                 }
//!   layers/part-00000.parquet    per step, layer, component (profiled)   /
//! ```
//!
//! Every part is a complete Parquet file that moved into place when it was written
//! (`.part-00000.parquet.tmp` until then), so a run that dies loses at most its open part and stays
//! readable with the status `partial`. pandas, DuckDB, Polars and Spark read the parts without
//! moescope; [`schema`] lists their columns.
//!
//! A recorder fills [`columns`] and hands them to a [`RunWriter`], or to a [`BackgroundWriter`] that
//! encodes on a thread of its own. A reader opens a [`Run`] and takes lazy frames
//! ([`Run::routing`]) or plain vectors ([`Run::read_routing`], [`Run::read`]).
//!
//! A bench result ([`mod@bench`]) is a JSON file beside runs: times per configuration of a model and what they
//! depend on ([`fingerprint`]). A history ([`history`]) is a directory of Parquet files with one row per
//! metric of a measurement.
//!
//! # Letters
//!
//! | letter | means |
//! |---|---|
//! | T | tokens of a batch or a run |
//! | L | MoE layers of the model |
//! | E | routed experts of a layer |
//! | K | experts a token selects in a layer (`top_k`) |
//! | R | rows of a table; T * L for `routing/` |

pub mod bench;
pub mod columns;
pub mod fingerprint;
pub mod history;
pub mod manifest;
pub mod schema;

mod background;
mod error;
mod files;
mod frame;
mod lists;
mod part;
mod reader;
mod scan;
mod tables;
mod together;
mod vectors;
mod writer;

pub use background::BackgroundWriter;
pub use bench::BenchResult;
pub use columns::{LayerColumns, Phase, RoutingColumns, StepColumns, TokenColumns};
pub use error::TraceError;
pub use fingerprint::Fingerprint;
pub use manifest::{Manifest, SCHEMA_VERSION};
pub use reader::{RoutingFields, Run};
pub use tables::{LayerTable, Lists, RoutingTable, StepTable, TokenTable};
pub use together::{Dropped, RunTables};
pub use writer::RunWriter;
