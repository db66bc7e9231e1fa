//! Ratios of sums over sequences: means per token, tokens per second, overlaps.

use std::sync::Arc;

use moescope_trace::Phase;

use crate::counts::{cells, column_sums};
use crate::study::Scope;

/// Numerators and denominators per group and phase. The statistic is the ratio of their sums.
#[derive(Clone, Debug)]
pub struct RatioSums {
    /// Pairs (numerator, denominator), `[G, 2]`.
    sums: Vec<[f64; 2]>,
}

impl RatioSums {
    /// Nothing yet, for G groups.
    pub fn new(groups: usize) -> Self {
        Self { sums: vec![[0.0; 2]; groups * 2] }
    }

    /// Adds to a group and phase.
    #[inline]
    pub fn add(&mut self, group: usize, phase: Phase, numerator: f64, denominator: f64) {
        let cell = &mut self.sums[group * 2 + crate::counts::phase_index(phase)];
        cell[0] += numerator;
        cell[1] += denominator;
    }

    /// Adds all sums of another, group by group.
    pub fn add_all(&mut self, other: &Self) {
        for (sum, more) in self.sums.iter_mut().zip(&other.sums) {
            sum[0] += more[0];
            sum[1] += more[1];
        }
    }

    /// The ratio in a scope and its interval, kept within `bounds`; `None` where the denominator
    /// is zero.
    pub fn ratio(&self, scope: &Scope, bounds: (f64, f64)) -> Option<(f64, Option<(f64, f64)>)> {
        // Groups that bring nothing (no decode, no pass of their own) are no units of the sample.
        let mut rows = Vec::with_capacity(scope.units.len() * 2);
        let mut total = [0.0; 2];
        for &group in &scope.units {
            let mut row = [0.0; 2];
            for cell in cells(group, scope.phase) {
                row[0] += self.sums[cell][0];
                row[1] += self.sums[cell][1];
            }
            if row[1] > 0.0 {
                total[0] += row[0];
                total[1] += row[1];
                rows.extend(row);
            }
        }
        if total[1] <= 0.0 {
            return None;
        }
        let value = total[0] / total[1];
        let units = rows.len() / 2;
        let resamples = if units == scope.resamples.units() {
            Arc::clone(&scope.resamples)
        } else {
            scope.resamples.with_units(units).into()
        };
        let mut sums = [0.0; 2];
        let mut values = Vec::with_capacity(resamples.len());
        for r in 0..resamples.len() {
            resamples.sums(r, &rows, &mut sums);
            values.push(sums[0] / sums[1]);
        }
        Some((value, resamples.interval(value, &mut values, bounds)))
    }
}

/// A value and its interval.
pub(crate) type Estimate = (f64, Option<(f64, f64)>);

/// Ratios of column sums: `rows` `[U, W]` holds sums per unit of a scope, the denominator in the last
/// column. One ratio for each of the other columns, kept within 0 and 1; `None` where the denominator
/// is zero.
pub(crate) fn column_ratios(rows: &[f64], width: usize, scope: &Scope) -> Option<Vec<Estimate>> {
    let sums = column_sums(rows, width);
    let (total, columns) = sums.split_last().filter(|(total, _)| **total > 0.0)?;
    let resamples = &scope.resamples;
    let mut resampled = vec![Vec::with_capacity(resamples.len()); columns.len()];
    let mut drawn = vec![0.0; width];
    for r in 0..resamples.len() {
        resamples.sums(r, rows, &mut drawn);
        for (values, sum) in resampled.iter_mut().zip(&drawn) {
            values.push(sum / drawn[width - 1]);
        }
    }
    let of_column = |(sum, values): (&f64, &mut Vec<f64>)| {
        let value = sum / total;
        (value, resamples.interval(value, values, (0.0, 1.0)))
    };
    Some(columns.iter().zip(&mut resampled).map(of_column).collect())
}
