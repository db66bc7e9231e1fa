//! How evenly the experts of a layer are used: six statistics of the same counts.

use crate::chance::Balance;
use crate::counts::column_sums;
use crate::metric::Metric;
use crate::parallel;
use crate::row::MetricRow;
use crate::study::{Scope, Study};

/// Balance statistics of counts `[E]`; `None` where nothing was selected.
pub fn balance_of(counts: &[f64]) -> Option<Balance> {
    Balance::of(&mut counts.to_vec())
}

/// The statistics of one layer in every scope, with their resamples.
pub(crate) struct LayerBalance(Vec<ScopeBalance>);

struct ScopeBalance {
    estimate: Option<Balance>,
    /// What uniform routing of as many tokens gives.
    chance: Option<Balance>,
    resampled: Vec<Balance>,
}

impl LayerBalance {
    pub(crate) fn all(study: &Study<'_>) -> Vec<Self> {
        parallel::map(&study.counted(), |(layer, counts)| {
            let of_scope = |scope: &Scope| {
                let rows = counts.rows(&scope.units, scope.phase);
                let tokens: f64 = counts.tokens(&scope.units, scope.phase).iter().sum();
                let mut sums = column_sums(&rows, layer.experts);
                let estimate = Balance::of(&mut sums);
                let mut resampled = Vec::with_capacity(scope.resamples.len());
                scope.resamples.each_sum(
                    scope.resamples.len(),
                    &rows,
                    layer.experts,
                    |_, drawn| {
                        sums.copy_from_slice(drawn);
                        resampled.extend(Balance::of(&mut sums));
                    },
                );
                ScopeBalance {
                    estimate,
                    chance: study.uniform(layer.experts, layer.top_k, tokens),
                    resampled,
                }
            };
            Self(study.scopes().iter().map(of_scope).collect())
        })
    }
}

/// Rows of one of the statistics.
pub(crate) fn rows(
    study: &Study<'_>,
    metric: &Metric,
    statistic: fn(&Balance) -> f64,
    bounds: fn(experts: usize) -> (f64, f64),
) -> Vec<MetricRow> {
    let mut rows = Vec::new();
    for (layer, balance) in study.data.layers.iter().zip(study.balance()) {
        for (scope, balance) in study.scopes().iter().zip(&balance.0) {
            let Some(value) = balance.estimate.as_ref().map(statistic) else {
                continue;
            };
            let mut values: Vec<f64> = balance.resampled.iter().map(statistic).collect();
            rows.push(MetricRow {
                layer: Some(layer.layer),
                value,
                interval: scope.resamples.interval(value, &mut values, bounds(layer.experts)),
                chance: balance.chance.as_ref().map(statistic),
                ..study.row(metric.name, metric.unit, scope)
            });
        }
    }
    rows
}
