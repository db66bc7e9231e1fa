//! How evenly the experts of a layer are used: six statistics of the same counts.

use crate::chance::Balance;
use crate::counts::column_sums;
use crate::metric::{Metric, Need};
use crate::parallel;
use crate::row::MetricRow;
use crate::study::{Scope, Study};

/// Rows of each of the six: layer; layer x phase; layer x domain. Interval: bootstrap over
/// sequences.
pub(crate) const IMBALANCE: Metric = Metric {
    name: "imbalance",
    title: "Load imbalance",
    unit: "ratio",
    formula: "max_e c_e / c̄",
    chance: "its expectation for T tokens, which tends to 1 as T grows",
    source: "Load of the most loaded expert over the mean load; it bounds the speed of \
             expert-parallel inference",
    needs: &[Need::Ids],
    compute: |study| rows(study, &IMBALANCE, |balance| balance.imbalance, |_| (1.0, f64::MAX)),
};

pub(crate) const MAX_VIO: Metric = Metric {
    name: "max_vio",
    title: "MaxVio",
    unit: "ratio",
    formula: "max_e c_e / c̄ - 1",
    chance: "its expectation for T tokens, which tends to 0 as T grows",
    source: "Wang et al. 2024, auxiliary-loss-free load balancing (arXiv 2408.15664)",
    needs: &[Need::Ids],
    compute: |study| rows(study, &MAX_VIO, |balance| balance.imbalance - 1.0, |_| (0.0, f64::MAX)),
};

pub(crate) const COEFFICIENT_OF_VARIATION: Metric = Metric {
    name: "coefficient_of_variation",
    title: "Coefficient of variation",
    unit: "ratio",
    formula: "std(c_e) / c̄, population standard deviation",
    chance: "its expectation for T tokens, which tends to 0 as T grows",
    source: "Shazeer et al. 2017 (arXiv 1701.06538), whose balance losses are its square",
    needs: &[Need::Ids],
    compute: |study| {
        rows(study, &COEFFICIENT_OF_VARIATION, |balance| balance.variation, |_| (0.0, f64::MAX))
    },
};

pub(crate) const GINI: Metric = Metric {
    name: "gini",
    title: "Gini coefficient",
    unit: "ratio",
    formula: "sum_i sum_j |c_i - c_j| / (2 E² c̄)",
    chance: "its expectation for T tokens, which tends to 0 as T grows",
    source: "Gini 1912; 0 is even use, (E-1)/E is one expert for all tokens",
    needs: &[Need::Ids],
    compute: |study| rows(study, &GINI, |balance| balance.gini, |_| (0.0, 1.0)),
};

pub(crate) const NORMALISED_ENTROPY: Metric = Metric {
    name: "normalised_entropy",
    title: "Normalised entropy of use",
    unit: "ratio",
    formula: "-sum_e p_e ln p_e / ln E, p_e = c_e / sum c; 1 for E = 1",
    chance: "its expectation for T tokens, which tends to 1 as T grows",
    source: "Shannon 1948, over the entropy of an even distribution",
    needs: &[Need::Ids],
    compute: |study| {
        rows(study, &NORMALISED_ENTROPY, |balance| balance.normalised_entropy, |_| (0.0, 1.0))
    },
};

pub(crate) const EFFECTIVE_EXPERTS: Metric = Metric {
    name: "effective_experts",
    title: "Effective experts",
    unit: "experts",
    formula: "exp(-sum_e p_e ln p_e)",
    chance: "its expectation for T tokens, which tends to E as T grows",
    source: "Hill 1973, diversity of order 1: as many evenly used experts have the same entropy",
    needs: &[Need::Ids],
    compute: |study| {
        let bounds = |experts: usize| (1.0, experts as f64);
        rows(study, &EFFECTIVE_EXPERTS, |balance| balance.effective_experts, bounds)
    },
};

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

fn rows(
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
