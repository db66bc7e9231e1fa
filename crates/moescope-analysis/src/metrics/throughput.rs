//! Tokens per second.

use std::collections::HashMap;

use crate::data::RunData;
use crate::metric::{Metric, Need};
use crate::ratio::RatioSums;
use crate::row::MetricRow;
use crate::study::{Scope, Study};

use moescope_trace::Phase;

/// Rows: phase (always named, `prefill` or `decode`; the two are not one number). Interval:
/// bootstrap over sequences.
pub(crate) const THROUGHPUT: Metric = Metric {
    name: "throughput",
    title: "Throughput",
    unit: "tokens/s",
    formula: "tokens of the passes of a phase / wall time of those passes; prefill is pp, decode tg",
    chance: "",
    source: "llama-bench's pp and tg: tokenisation and sampling excluded, device synchronised",
    needs: &[Need::Times],
    compute,
};

fn compute(study: &Study<'_>) -> Vec<MetricRow> {
    let steps = &study.data.steps;
    let groups = step_groups(study);
    // Without knowing whose passes they are, all are one unit and there is nothing to resample.
    let known = groups.iter().all(Option::is_some);
    let mut sums = RatioSums::new(study.groups.len().max(1));
    for (step, group) in groups.iter().enumerate() {
        let seconds = steps.duration_ns[step] as f64 * 1e-9;
        let group = group.filter(|_| known).unwrap_or(0);
        sums.add(group, steps.phase[step], f64::from(steps.tokens[step]), seconds);
    }
    let mut rows = Vec::new();
    for phase in [Phase::Prefill, Phase::Decode] {
        let mut scope = Scope { phase: Some(phase), ..study.overall().clone() };
        if scope.units.is_empty() {
            scope.units.push(0);
        }
        if let Some((value, interval)) = sums.ratio(&scope, (0.0, f64::MAX)) {
            let row = study.row(THROUGHPUT.name, THROUGHPUT.unit, &scope);
            rows.push(MetricRow { value, interval, ..row });
        }
    }
    rows
}

/// The group of each forward pass: that of a sequence in it. Passes of several sequences (batches)
/// count for the first one.
pub(crate) fn step_groups(study: &Study<'_>) -> Vec<Option<usize>> {
    let data: &RunData = study.data;
    let mut group_of_step: HashMap<u32, usize> = HashMap::new();
    for (index, sequence) in data.sequences.iter().enumerate() {
        let group = study.groups.of_sequence(index);
        let mut last = None;
        for &step in &data.tokens.step[sequence.start..sequence.end] {
            // A prefill is thousands of tokens of one step.
            if last != Some(step) {
                group_of_step.entry(step).or_insert(group);
                last = Some(step);
            }
        }
    }
    data.steps.step.iter().map(|step| group_of_step.get(step).copied()).collect()
}
