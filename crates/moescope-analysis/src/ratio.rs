//! Ratios of sums over sequences: means per token, tokens per second, overlaps.

use std::sync::Arc;

use moescope_trace::Phase;

use crate::bootstrap::{MIN_UNITS, Z};
use crate::counts::{cells, column_sums, phase_index};
use crate::study::Scope;

/// A value and its interval.
pub type Estimate = (f64, Option<(f64, f64)>);

/// Numerators and denominators per group and phase, of C ratios at once. Each statistic is the ratio
/// of their sums.
#[derive(Clone, Debug)]
pub struct RatioTable {
    columns: usize,
    /// Pairs (numerator, denominator), `[G, 2, C]`.
    sums: Vec<[f64; 2]>,
}

impl RatioTable {
    /// Nothing yet, for G groups and C ratios.
    pub fn new(groups: usize, columns: usize) -> Self {
        Self { columns, sums: vec![[0.0; 2]; groups * 2 * columns] }
    }

    /// Adds to a group and phase.
    #[inline]
    pub fn add(
        &mut self,
        group: usize,
        phase: Phase,
        column: usize,
        numerator: f64,
        denominator: f64,
    ) {
        let cell = &mut self.cell(group, phase)[column];
        cell[0] += numerator;
        cell[1] += denominator;
    }

    /// The pairs of a group and phase, `[C]`.
    #[inline]
    pub fn cell(&mut self, group: usize, phase: Phase) -> &mut [[f64; 2]] {
        let first = (group * 2 + phase_index(phase)) * self.columns;
        &mut self.sums[first..first + self.columns]
    }

    /// Adds all sums of another, group by group.
    pub fn add_all(&mut self, other: &Self) {
        for (sum, more) in self.sums.iter_mut().zip(&other.sums) {
            sum[0] += more[0];
            sum[1] += more[1];
        }
    }

    /// As [`RatioTable::ratios`], of numbers of events out of numbers of trials: intervals are no narrower
    /// than such counts allow, see [`with_rare_events`].
    pub(crate) fn shares(&self, scope: &Scope) -> Vec<Option<Estimate>> {
        let mut counts = vec![[0.0; 2]; self.columns];
        for &group in &scope.units {
            for cell in cells(group, scope.phase) {
                let sums = &self.sums[cell * self.columns..(cell + 1) * self.columns];
                for (to, from) in counts.iter_mut().zip(sums) {
                    to[0] += from[0];
                    to[1] += from[1];
                }
            }
        }
        let with_counts = |(estimate, [events, trials]): (Option<Estimate>, [f64; 2])| {
            let (value, interval) = estimate?;
            Some((value, with_rare_events(interval, events, trials)))
        };
        self.ratios(scope, (0.0, 1.0)).into_iter().zip(counts).map(with_counts).collect()
    }

    /// The ratios in a scope with their intervals, kept within `bounds`, `[C]`; `None` where a
    /// denominator is zero, and no interval where fewer than 5 groups bring anything.
    pub fn ratios(&self, scope: &Scope, bounds: (f64, f64)) -> Vec<Option<Estimate>> {
        let width = 2 * self.columns;
        // Groups that bring nothing (no decode, no pass of their own) are no units of the sample.
        let mut rows = Vec::with_capacity(scope.units.len() * width);
        let mut total = vec![[0.0; 2]; self.columns];
        let mut contributing = vec![0usize; self.columns];
        for &group in &scope.units {
            let start = rows.len();
            rows.resize(start + width, 0.0);
            let row = &mut rows[start..];
            for cell in cells(group, scope.phase) {
                let sums = &self.sums[cell * self.columns..(cell + 1) * self.columns];
                for (to, [numerator, denominator]) in row.chunks_exact_mut(2).zip(sums) {
                    to[0] += numerator;
                    to[1] += denominator;
                }
            }
            for ((pair, total), units) in row.chunks_exact(2).zip(&mut total).zip(&mut contributing)
            {
                total[0] += pair[0];
                total[1] += pair[1];
                *units += usize::from(pair[1] > 0.0);
            }
            if row.chunks_exact(2).all(|pair| pair[1] <= 0.0) {
                rows.truncate(start);
            }
        }
        let units = rows.len() / width.max(1);
        let resamples = if units == scope.resamples.units() {
            Arc::clone(&scope.resamples)
        } else {
            scope.resamples.with_units(units).into()
        };
        let mut values = vec![Vec::with_capacity(resamples.len()); self.columns];
        resamples.each_sum(resamples.len(), &rows, width, |_, sums| {
            for (values, pair) in values.iter_mut().zip(sums.chunks_exact(2)) {
                values.push(pair[0] / pair[1]);
            }
        });
        let of_column = |((total, units), values): ((&[f64; 2], usize), &mut Vec<f64>)| {
            (total[1] > 0.0).then(|| {
                let value = total[0] / total[1];
                let enough = units >= MIN_UNITS;
                (value, resamples.interval(value, values, bounds).filter(|_| enough))
            })
        };
        total.iter().zip(contributing).zip(&mut values).map(of_column).collect()
    }
}

/// Events (or trials without) below which resampling says too little of how many there might have been.
const RARE: f64 = 30.0;

/// The interval of a share of events, no narrower than if trials were independent.
///
/// What never happened happens in no resample either, so the bootstrap would be sure that it never
/// does. The score interval (Wilson 1927) knows better. It is used beside the bootstrap's, which knows
/// that the tokens of a sequence are not independent, where events or trials without one are few.
pub(crate) fn with_rare_events(
    interval: Option<(f64, f64)>,
    events: f64,
    trials: f64,
) -> Option<(f64, f64)> {
    let (low, high) = interval?;
    if events.min(trials - events) >= RARE || trials <= 0.0 {
        return Some((low, high));
    }
    let (z, share) = (Z, events / trials);
    let centre = share + z * z / (2.0 * trials);
    let reach = z * (share * (1.0 - share) / trials + z * z / (4.0 * trials * trials)).sqrt();
    let scale = 1.0 + z * z / trials;
    Some((low.min((centre - reach) / scale).max(0.0), high.max((centre + reach) / scale).min(1.0)))
}

/// A [`RatioTable`] of one ratio.
#[derive(Clone, Debug)]
pub struct RatioSums(RatioTable);

impl RatioSums {
    /// Nothing yet, for G groups.
    pub fn new(groups: usize) -> Self {
        Self(RatioTable::new(groups, 1))
    }

    /// Adds to a group and phase.
    #[inline]
    pub fn add(&mut self, group: usize, phase: Phase, numerator: f64, denominator: f64) {
        self.0.add(group, phase, 0, numerator, denominator);
    }

    /// Adds all sums of another, group by group.
    pub fn add_all(&mut self, other: &Self) {
        self.0.add_all(&other.0);
    }

    /// The ratio in a scope and its interval, kept within `bounds`; `None` where the denominator
    /// is zero.
    pub fn ratio(&self, scope: &Scope, bounds: (f64, f64)) -> Option<Estimate> {
        self.0.ratios(scope, bounds).pop().flatten()
    }
}

/// Ratios of column sums: `rows` `[U, W]` holds sums per unit of a scope, the denominator in the last
/// column. One share for each of the other columns, of events out of so many trials; `None` where the denominator
/// is zero.
pub(crate) fn column_ratios(rows: &[f64], width: usize, scope: &Scope) -> Option<Vec<Estimate>> {
    let sums = column_sums(rows, width);
    let (total, columns) = sums.split_last().filter(|(total, _)| **total > 0.0)?;
    let resamples = &scope.resamples;
    let mut resampled = vec![Vec::with_capacity(resamples.len()); columns.len()];
    resamples.each_sum(resamples.len(), rows, width, |_, drawn| {
        for (values, sum) in resampled.iter_mut().zip(drawn) {
            values.push(sum / drawn[width - 1]);
        }
    });
    let of_column = |(sum, values): (&f64, &mut Vec<f64>)| {
        let value = sum / total;
        let interval = resamples.interval(value, values, (0.0, 1.0));
        // At the other end, where nearly all are events, curves are certain: all experts hit always.
        let rare = *sum < RARE;
        (value, if rare { with_rare_events(interval, *sum, *total) } else { interval })
    };
    Some(columns.iter().zip(&mut resampled).map(of_column).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_happened_may_yet() {
        // Rule of three: none of 100 is at most about 3.7 % (z² / (n + z²)).
        let (low, high) = with_rare_events(Some((0.0, 0.0)), 0.0, 100.0).unwrap_or_default();
        assert_eq!(low, 0.0);
        assert!((high - Z * Z / (100.0 + Z * Z)).abs() < 1e-12, "{high}");
        let always = with_rare_events(Some((1.0, 1.0)), 100.0, 100.0).unwrap_or_default();
        assert!((always.0 - (1.0 - high)).abs() < 1e-12 && always.1 == 1.0, "{always:?}");
        // Where events are many, and where there is no interval, nothing changes.
        assert_eq!(with_rare_events(Some((0.4, 0.6)), 50.0, 100.0), Some((0.4, 0.6)));
        assert_eq!(with_rare_events(None, 0.0, 100.0), None);
        // A wider one stays.
        assert_eq!(with_rare_events(Some((0.0, 0.9)), 2.0, 100.0), Some((0.0, 0.9)));
    }
}
