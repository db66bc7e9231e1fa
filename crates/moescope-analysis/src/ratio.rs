//! Ratios of sums over sequences: means per token, tokens per second, overlaps.

use std::sync::Arc;

use moescope_trace::Phase;

use crate::bootstrap::MIN_UNITS;
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
/// column. One ratio for each of the other columns, kept within 0 and 1; `None` where the denominator
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
        (value, resamples.interval(value, values, (0.0, 1.0)))
    };
    Some(columns.iter().zip(&mut resampled).map(of_column).collect())
}
