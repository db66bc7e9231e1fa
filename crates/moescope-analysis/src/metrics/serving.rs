//! What someone who waits for an answer sees: time to the first token, and between tokens.

use std::collections::HashMap;

use moescope_trace::Phase;

use super::latency::percentile_rows;
use crate::metric::{Metric, Need};
use crate::study::Study;

/// Rows: phase (prefill) x percentile (50, 95, 99) over sequences. Interval: bootstrap over sequences.
pub(crate) const TTFT: Metric = Metric {
    name: "ttft",
    title: "Time to the first token",
    unit: "ns",
    formula: "sum of the durations of the prefill passes that hold tokens of the sequence",
    chance: "",
    source: "TTFT as serving benchmarks define it, from request start to first token, without waiting, \
             tokenisation and sampling, which a run does not record",
    needs: &[Need::Ids, Need::Times],
    compute: |study| {
        let times = per_sequence(study, Phase::Prefill);
        let sums = times.into_iter().map(|(sum, _, group)| (sum, group)).collect();
        percentile_rows(study, &TTFT, Phase::Prefill, sums)
    },
};

/// Rows: phase (decode) x percentile (50, 95, 99) over sequences. Interval: bootstrap over sequences.
pub(crate) const TPOT: Metric = Metric {
    name: "tpot",
    title: "Time per output token",
    unit: "ns",
    formula: "(end-to-end time - TTFT) / (output tokens - 1): mean duration of the decode passes that hold a \
              token of the sequence",
    chance: "",
    source: "TPOT as serving benchmarks define it; the first output token comes from the prefill, each \
             decode pass brings one more",
    needs: &[Need::Ids, Need::Times],
    compute: |study| {
        let times = per_sequence(study, Phase::Decode);
        let means = times.into_iter().map(|(sum, passes, group)| (sum / passes, group)).collect();
        percentile_rows(study, &TPOT, Phase::Decode, means)
    },
};

/// Rows: phase (decode) x percentile (50, 95, 99) over tokens. Interval: bootstrap over sequences.
pub(crate) const ITL: Metric = Metric {
    name: "itl",
    title: "Inter-token latency",
    unit: "ns",
    formula: "the gap before each generated token but the first: duration of the decode pass that brings it, \
              once for every sequence in the pass",
    chance: "",
    source: "ITL as serving benchmarks define it: the raw gaps, not their means per request",
    needs: &[Need::Ids, Need::Times],
    compute: |study| {
        let durations = durations(study, Phase::Decode);
        let mut gaps = Vec::new();
        for (index, sequence) in study.data.sequences.iter().enumerate() {
            let group = study.groups.of_sequence(index);
            let steps = &study.data.tokens.step[sequence.start..sequence.end];
            gaps.extend(steps.iter().filter_map(|step| Some((*durations.get(step)?, Some(group)))));
        }
        percentile_rows(study, &ITL, Phase::Decode, gaps)
    },
};

/// Durations of the passes of a phase by step.
fn durations(study: &Study<'_>, phase: Phase) -> HashMap<u32, u64> {
    let steps = &study.data.steps;
    (0..steps.rows())
        .filter(|&row| steps.phase[row] == phase)
        .map(|row| (steps.step[row], steps.duration_ns[row]))
        .collect()
}

/// Of each sequence with passes of a phase: their durations together, how many they are, its group.
fn per_sequence(study: &Study<'_>, phase: Phase) -> Vec<(u64, u64, Option<usize>)> {
    let durations = durations(study, phase);
    let mut times = Vec::new();
    for (index, sequence) in study.data.sequences.iter().enumerate() {
        let steps = &study.data.tokens.step[sequence.start..sequence.end];
        let (mut sum, mut passes) = (0, 0);
        // Tokens of one pass are next to each other in a sequence.
        for step in steps.chunk_by(|a, b| a == b) {
            if let Some(duration) = durations.get(&step[0]) {
                sum = duration.saturating_add(sum);
                passes += 1;
            }
        }
        if passes > 0 {
            times.push((sum, passes, Some(study.groups.of_sequence(index))));
        }
    }
    times
}
