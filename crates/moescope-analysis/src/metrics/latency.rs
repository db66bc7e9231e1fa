//! How long forward passes take, as a distribution.

use std::collections::HashMap;

use super::throughput::step_groups;
use crate::bootstrap::Resamples;
use crate::metric::{Metric, Need};
use crate::row::{Index, MetricRow};
use crate::study::{Scope, Study};

use moescope_trace::Phase;

/// Rows: phase (always named) x percentile (50, 95, 99). A prefill pass is as long as its prompt;
/// a decode pass is one token per sequence. Interval: bootstrap over sequences.
pub(crate) const STEP_LATENCY: Metric = Metric {
    name: "step_latency",
    title: "Latency of forward passes",
    unit: "ns",
    formula: "smallest duration that at least 50/95/99 % of the passes of the phase do not exceed",
    chance: "",
    source: "Nearest-rank percentile: always a duration that was measured",
    needs: &[Need::Times],
    compute,
};

const PERCENTS: [u8; 3] = [50, 95, 99];

/// Most passes x resamples looked at: with more passes than 100,000, fewer resamples tell as much.
const MAX_WORK: usize = 100_000_000;

fn compute(study: &Study<'_>) -> Vec<MetricRow> {
    let steps = &study.data.steps;
    let groups = step_groups(study);
    let of_phase = |phase| {
        let passes = (0..steps.rows())
            .filter(|&step| steps.phase[step] == phase)
            .map(|step| (steps.duration_ns[step], groups[step]))
            .collect();
        percentile_rows(study, &STEP_LATENCY, phase, passes)
    };
    [Phase::Prefill, Phase::Decode].into_iter().flat_map(of_phase).collect()
}

/// Rows of the percentiles of durations in nanoseconds, each with the group it belongs to.
pub(crate) fn percentile_rows(
    study: &Study<'_>,
    metric: &Metric,
    phase: Phase,
    mut durations: Vec<(u64, Option<usize>)>,
) -> Vec<MetricRow> {
    durations.sort_unstable();
    if durations.is_empty() {
        return Vec::new();
    }
    let scope = Scope { phase: Some(phase), ..study.overall().clone() };
    let estimate = percentiles(&durations, |_| 1);
    let resamples = scope.resamples.with_units(number_units(&mut durations));
    let mut resampled = resample(&durations, &resamples);
    let row = study.row(metric.name, metric.unit, &scope);
    let mut rows = Vec::new();
    for ((percent, value), values) in PERCENTS.into_iter().zip(estimate).zip(&mut resampled) {
        rows.push(MetricRow {
            index: Some(Index::Percentile(percent)),
            value,
            interval: resamples.interval(value, values, (0.0, f64::MAX)),
            ..row.clone()
        });
    }
    rows
}

/// Numbers the groups that have passes from 0 and returns how many there are; 0 if a pass belongs
/// to no known group, so that nothing is resampled.
fn number_units(passes: &mut [(u64, Option<usize>)]) -> usize {
    let mut numbers = HashMap::new();
    for (_, group) in passes.iter_mut() {
        let Some(known) = *group else {
            return 0;
        };
        let next = numbers.len();
        *group = Some(*numbers.entry(known).or_insert(next));
    }
    numbers.len()
}

/// The percentiles in each resample of the units that [`number_units`] numbered.
fn resample(passes: &[(u64, Option<usize>)], resamples: &Resamples) -> [Vec<f64>; 3] {
    let mut resampled = PERCENTS.map(|_| Vec::new());
    let count = resamples.len().min((MAX_WORK / passes.len()).max(100));
    for r in 0..count {
        let weights = resamples.weights(r);
        let weight = |group: Option<usize>| group.map_or(0, |group| u64::from(weights[group]));
        for (values, value) in resampled.iter_mut().zip(percentiles(passes, weight)) {
            values.push(value);
        }
    }
    resampled
}

/// Nearest-rank percentiles of ascending durations, each counted `weight` times; NaN where all
/// weights are zero.
fn percentiles(passes: &[(u64, Option<usize>)], weight: impl Fn(Option<usize>) -> u64) -> [f64; 3] {
    let total: u64 = passes.iter().map(|&(_, group)| weight(group)).sum();
    let mut values = [f64::NAN; 3];
    let (mut seen, mut reached) = (0, 0);
    for &(duration, group) in passes {
        seen += weight(group);
        while reached < 3 && seen > 0 && seen * 100 >= total * u64::from(PERCENTS[reached]) {
            values[reached] = duration as f64;
            reached += 1;
        }
    }
    values
}
