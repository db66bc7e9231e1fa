//! How few experts serve most selections, on text the choice did not see.

use crate::counts::{LayerCounts, column_sums};
use crate::data::LayerData;
use crate::metric::{Group, Metric, Need};
use crate::parallel;
use crate::row::{Index, MetricRow};
use crate::study::Study;

/// Rows: layer x percentile (50, 80, 90). Interval: bootstrap over sequences.
pub(crate) const COVERAGE: Metric = Metric {
    name: "coverage",
    title: "Experts that serve most selections",
    group: Group::Balance,
    unit: "ratio",
    formula: "m/E for the smallest m such that the m experts most used in one half of the sequences \
              serve 50/80/90 % of the selections in the other half",
    chance: "ceil(q E) / E: an even share of experts for an even share of selections",
    source: "Held-out form of the Lorenz curve: ranked and measured on the same tokens, sampling \
             noise alone would look like concentration",
    needs: &[Need::Ids],
    compute,
};

const PERCENTS: [u8; 3] = [50, 80, 90];

fn compute(study: &Study<'_>) -> Vec<MetricRow> {
    parallel::map(&study.counted(), |(layer, counts)| of_layer(study, layer, counts)).concat()
}

fn of_layer(study: &Study<'_>, layer: &LayerData, counts: &LayerCounts) -> Vec<MetricRow> {
    let scope = study.overall();
    let experts = layer.experts;
    // [U, 2E]: a unit's counts go left if it is in the half that chooses, right if it measures.
    let mut rows = vec![0.0; scope.units.len() * 2 * experts];
    let halves = counts.rows(&scope.units, None);
    for ((row, unit), &group) in rows
        .chunks_exact_mut(2 * experts.max(1))
        .zip(halves.chunks_exact(experts.max(1)))
        .zip(&scope.units)
    {
        let at = if study.groups.is_second_half(group as usize) { experts } else { 0 };
        row[at..at + experts].copy_from_slice(unit);
    }
    let Some(estimate) = coverage(&column_sums(&rows, 2 * experts)) else {
        return Vec::new();
    };
    let mut resampled = PERCENTS.map(|_| Vec::with_capacity(scope.resamples.len()));
    scope.resamples.each_sum(scope.resamples.len(), &rows, 2 * experts, |_, sums| {
        if let Some(shares) = coverage(sums) {
            for (values, share) in resampled.iter_mut().zip(shares) {
                values.push(share);
            }
        }
    });
    let row = study.row(COVERAGE.name, COVERAGE.unit, scope);
    let bounds = (1.0 / experts as f64, 1.0);
    let mut rows = Vec::new();
    for ((percent, value), values) in PERCENTS.into_iter().zip(estimate).zip(&mut resampled) {
        let even = (usize::from(percent) * experts).div_ceil(100) as f64 / experts as f64;
        rows.push(MetricRow {
            layer: Some(layer.layer),
            index: Some(Index::Percentile(percent)),
            value,
            interval: scope
                .resamples
                .interval(value, values, bounds)
                .map(|(low, high)| (low.min(value), high.max(value)))
                .map(|(low, high)| (to_grid(low, experts).0, to_grid(high, experts).1)),
            chance: Some(even),
            ..row.clone()
        });
    }
    rows
}

/// The multiples of 1/E below and above a share: there is nothing between them, so an interval ends
/// on one.
fn to_grid(share: f64, experts: usize) -> (f64, f64) {
    let count = share * experts as f64;
    // A share that is a multiple already must not lose or gain an expert to rounding.
    ((count + 1e-9).floor() / experts as f64, (count - 1e-9).ceil() / experts as f64)
}

/// Shares of experts for [`PERCENTS`], from the counts of the half that chooses and of the half
/// that measures, `[2E]`; `None` where one of them is empty.
fn coverage(counts: &[f64]) -> Option<[f64; 3]> {
    let (choose, measure) = counts.split_at(counts.len() / 2);
    let total: f64 = measure.iter().sum();
    if total <= 0.0 || choose.iter().sum::<f64>() <= 0.0 {
        return None;
    }
    let mut order: Vec<usize> = (0..choose.len()).collect();
    // Ties go to the lower expert: the measuring half must have no say.
    order.sort_by(|&a, &b| choose[b].total_cmp(&choose[a]));
    let mut served = 0.0;
    let mut shares = [1.0; 3];
    let mut reached = 0;
    for (taken, &expert) in (1u32..).zip(&order) {
        served += measure[expert];
        while reached < PERCENTS.len() && served * 100.0 >= f64::from(PERCENTS[reached]) * total {
            shares[reached] = f64::from(taken) / choose.len() as f64;
            reached += 1;
        }
    }
    Some(shares)
}
