//! What someone who waits for an answer sees of the difference between two runs.

use std::collections::HashMap;

use moescope_trace::Phase;

use super::pair::Pair;
use super::samples::ratio_row;
use super::speed::same_machine;
use super::{ComparisonMetric, Part, Refusal};
use crate::data::RunData;
use crate::metric::Need;
use crate::row::MetricRow;
use crate::stats::median;

/// Rows: phase (prefill). Interval: bootstrap over sequences.
pub(super) const TTFT_RATIO: ComparisonMetric = ComparisonMetric {
    name: "ttft_ratio",
    title: "Time to the first token against the base",
    unit: "ratio",
    formula: "`ttft` of b over that of a, sequence by sequence: Hodges-Lehmann estimate of the ratio",
    chance: "1 (equally fast)",
    source: "As `speed_ratio`. It is as long as the prompt, so it is compared where both runs read the same prompts",
    part: Part::Speed,
    token_wise: true,
    needs: &[Need::Times],
    of_each: Some("ttft"),
    compute: |pair| {
        let whole = |durations: &mut [f64]| Some(durations.iter().sum::<f64>());
        rows(pair, &TTFT_RATIO, Phase::Prefill, whole)
    },
};

/// Rows: phase (decode). Interval: bootstrap over sequences.
pub(super) const TPOT_RATIO: ComparisonMetric = ComparisonMetric {
    name: "tpot_ratio",
    title: "Time per output token against the base",
    unit: "ratio",
    formula: "`tpot` of b over that of a, sequence by sequence: Hodges-Lehmann estimate of the ratio",
    chance: "1 (equally fast)",
    source: "As `speed_ratio`; with one sequence in a pass it is that of decode turned around",
    part: Part::Speed,
    token_wise: false,
    needs: &[Need::Times],
    of_each: Some("tpot"),
    compute: |pair| {
        let mean =
            |durations: &mut [f64]| Some(durations.iter().sum::<f64>() / durations.len() as f64);
        rows(pair, &TPOT_RATIO, Phase::Decode, mean)
    },
};

/// Rows: phase (decode). Interval: bootstrap over sequences.
pub(super) const ITL_RATIO: ComparisonMetric = ComparisonMetric {
    name: "itl_ratio",
    title: "Inter-token latency against the base",
    unit: "ratio",
    formula: "median gap between the tokens of a sequence in b over that in a: Hodges-Lehmann estimate of the ratio",
    chance: "1 (equally fast)",
    source: "As `speed_ratio`; a few slow passes move `tpot_ratio` and not this one",
    part: Part::Speed,
    token_wise: false,
    needs: &[Need::Times],
    of_each: Some("itl"),
    compute: |pair| rows(pair, &ITL_RATIO, Phase::Decode, median),
};

/// The ratio of what `of` makes of the durations of a sequence's passes in a phase.
fn rows(
    pair: &Pair<'_>,
    metric: &ComparisonMetric,
    phase: Phase,
    of: fn(&mut [f64]) -> Option<f64>,
) -> Result<Vec<MetricRow>, Refusal> {
    same_machine(pair)?;
    let samples = [pair.base, pair.other].map(|study| -> Vec<(u32, f64)> {
        let per_sequence = durations(study.data, phase);
        per_sequence.into_iter().filter_map(|(id, mut gaps)| Some((id, of(&mut gaps)?))).collect()
    });
    Ok(ratio_row(pair, metric, Some(phase), samples).into_iter().collect())
}

/// Durations in ns of the passes of a phase that hold tokens of each sequence; sequences without are left
/// out.
fn durations(data: &RunData, phase: Phase) -> Vec<(u32, Vec<f64>)> {
    let steps = &data.steps;
    let of_step: HashMap<u32, f64> = (0..steps.rows())
        .filter(|&row| steps.phase[row] == phase)
        .map(|row| (steps.step[row], steps.duration_ns[row] as f64))
        .collect();
    let of_sequence = |sequence: &crate::Sequence| {
        // Tokens of one pass are next to each other in a sequence.
        let passes = data.tokens.step[sequence.start..sequence.end].chunk_by(|a, b| a == b);
        let durations: Vec<f64> =
            passes.filter_map(|step| of_step.get(&step[0]).copied()).collect();
        (!durations.is_empty()).then_some((sequence.id, durations))
    };
    data.sequences.iter().filter_map(of_sequence).collect()
}
