//! Percentiles of durations, with intervals over sequences.

use std::collections::HashMap;

use moescope_trace::Phase;

use crate::bootstrap::Resamples;
use crate::metric::Metric;
use crate::parallel;
use crate::row::{Index, MetricRow};
use crate::study::{Scope, Study};

const PERCENTS: [u8; 3] = [50, 95, 99];

/// Most passes x resamples looked at: with more passes than 100,000, fewer resamples tell as much.
const MAX_WORK: usize = 100_000_000;

/// Rows of the percentiles of durations in nanoseconds, each with the group it belongs to.
pub(crate) fn rows(
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
    let count = resamples.len().min((MAX_WORK / passes.len()).max(100));
    let numbers: Vec<usize> = (0..count).collect();
    let drawn = parallel::map(&numbers, |&r| {
        let weights = resamples.weights(r);
        percentiles(passes, |group| group.map_or(0, |group| u64::from(weights[group])))
    });
    [0, 1, 2].map(|at| drawn.iter().map(|values| values[at]).collect())
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
