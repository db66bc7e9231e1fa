//! Two runs side by side: how use of the experts differs, where single tokens went elsewhere, and what it
//! cost.

mod agreement;
mod comparison;
mod distribution_shift;
mod equal_tokens;
mod latency;
mod logprobs;
mod memory;
mod metric;
mod pair;
mod passes;
mod refusal;
mod routing_overlap;
mod same_experts;
mod samples;
mod speed;
mod tokens;
mod top1_flips;
mod usage;
mod utilisation_difference;

pub use comparison::{Comparison, TokenWise};
pub use metric::{ComparisonMetric, Part};
pub use refusal::Refusal;
pub(crate) use speed::machine_differences;

use crate::data::RunData;
use crate::metrics::METRICS;
use crate::options::Options;
use crate::study::Study;
use pair::Pair;

/// Every metric of two runs, in the order of their rows in a comparison.
pub const COMPARISON_METRICS: &[ComparisonMetric] = &[
    utilisation_difference::UTILISATION_DIFFERENCE,
    distribution_shift::DISTRIBUTION_SHIFT,
    routing_overlap::ROUTING_OVERLAP,
    same_experts::SAME_EXPERTS,
    top1_flips::TOP1_FLIPS,
    equal_tokens::EQUAL_TOKENS,
    logprobs::LOGPROB_DIFFERENCE,
    logprobs::LOGPROB_CHANGE,
    speed::SPEED_RATIO,
    latency::TTFT_RATIO,
    latency::TPOT_RATIO,
    latency::ITL_RATIO,
    memory::BYTES_IN_USE_RATIO,
    memory::BYTES_RESERVED_RATIO,
    memory::RSS_RATIO,
];

/// Compares a run with a base. The names and indices of the result are those of the data and
/// (0, 1). Speed is compared on one machine only.
pub fn compare(base: &RunData, other: &RunData, options: &Options) -> Comparison {
    compare_across(base, other, options, false)
}

/// As [`compare`]; `across_machines` compares speed even where devices, drivers or hosts differ.
pub fn compare_across(
    base: &RunData,
    other: &RunData,
    options: &Options,
    across_machines: bool,
) -> Comparison {
    let studies = [Study::new(base, options), Study::new(other, options)];
    let pair = Pair::new(&studies[0], &studies[1], across_machines);
    let mut comparison = Comparison {
        base: 0,
        other: 1,
        base_name: base.name.clone(),
        other_name: other.name.clone(),
        utilisation: pair.shapes().err(),
        token_wise: pair.token_wise(),
        missing: Vec::new(),
        rows: Vec::new(),
        sides: Default::default(),
    };
    for metric in COMPARISON_METRICS {
        match rows(metric, &pair) {
            Ok(rows) => {
                if !rows.is_empty() {
                    add_sides(metric, &studies, &mut comparison.sides);
                }
                comparison.rows.extend(rows);
            }
            // Said of the use of experts and of the tokens already.
            Err(_) if metric.part == Part::Routing => {}
            Err(refusal) => {
                let missing = (metric.part.name(), refusal);
                if !comparison.missing.contains(&missing) {
                    comparison.missing.push(missing);
                }
            }
        }
    }
    comparison
}

/// Rows of a metric, where the runs allow it.
fn rows(metric: &ComparisonMetric, pair: &Pair<'_>) -> Result<Vec<crate::MetricRow>, Refusal> {
    if metric.part == Part::Routing {
        pair.shapes()?;
    }
    if metric.token_wise {
        pair.spans()?;
    }
    for &need in metric.needs {
        if !(pair.base.data.has(need) && pair.other.data.has(need)) {
            return Err(Refusal::not_recorded(need));
        }
    }
    (metric.compute)(pair)
}

/// What each run has of the metric that a ratio is about.
fn add_sides(
    metric: &ComparisonMetric,
    studies: &[Study<'_>; 2],
    sides: &mut [Vec<crate::MetricRow>; 2],
) {
    for of_each in METRICS.iter().filter(|of_each| Some(of_each.name) == metric.of_each) {
        for (study, rows) in studies.iter().zip(sides.iter_mut()) {
            if of_each.needs.iter().all(|need| study.data.has(*need)) {
                rows.extend((of_each.compute)(study));
            }
        }
    }
}
