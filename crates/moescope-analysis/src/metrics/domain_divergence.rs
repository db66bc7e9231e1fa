//! How differently two domains use the experts of a layer.

use crate::counts::{LayerCounts, column_sums};
use crate::data::LayerData;
use crate::metric::{Group, Metric, Need};
use crate::parallel;
use crate::row::{Index, MetricRow};
use crate::study::{Scope, Study};

/// Rows: layer x pair of domains. `Index::Pair(i, j)` holds two indices into the analysis'
/// `domains`, i < j. Interval: bootstrap over the sequences of both domains.
pub(crate) const DOMAIN_DIVERGENCE: Metric = Metric {
    name: "domain_divergence",
    title: "Divergence between domains",
    group: Group::Structure,
    unit: "nats",
    formula: "Jensen-Shannon divergence of p_e between two domains: H((P+Q)/2) - (H(P) + H(Q))/2",
    chance: "(E-k)/(8k) (1/T_i + 1/T_j): what two samples of one distribution show; it tends to 0",
    source: "Lin 1991, Divergence measures based on the Shannon entropy; the chance level is its \
             expectation to first order in 1/T for independent tokens",
    needs: &[Need::Ids, Need::Domains, Need::FewDomains],
    compute,
};

/// Resamples for one pair: an interval of an effect size is read to two digits, and the pairs are
/// many.
const MAX_RESAMPLES: usize = 250;

struct Domain<'s> {
    index: u16,
    scope: &'s Scope,
    tokens: f64,
    /// Distribution over experts, `[E]`.
    estimate: Vec<f64>,
    /// The same in each resample.
    resampled: Vec<Vec<f64>>,
}

fn compute(study: &Study<'_>) -> Vec<MetricRow> {
    parallel::map(&study.counted(), |(layer, counts)| of_layer(study, layer, counts)).concat()
}

fn of_layer(study: &Study<'_>, layer: &LayerData, counts: &LayerCounts) -> Vec<MetricRow> {
    let experts = layer.experts;
    let domains: Vec<Domain<'_>> = study
        .domains()
        .filter_map(|(index, scope)| {
            let rows = counts.rows(&scope.units, None);
            let mut resampled = Vec::with_capacity(MAX_RESAMPLES);
            scope.resamples.each_sum(MAX_RESAMPLES, &rows, experts, |_, sums| {
                resampled.extend(distribution(sums));
            });
            Some(Domain {
                index,
                scope,
                tokens: counts.tokens(&scope.units, None).iter().sum(),
                estimate: distribution(&column_sums(&rows, experts))?,
                resampled,
            })
        })
        .collect();

    let chance = (layer.experts as f64 - layer.top_k as f64) / (8.0 * layer.top_k as f64);
    let row = study.row(DOMAIN_DIVERGENCE.name, DOMAIN_DIVERGENCE.unit, study.overall());
    let mut rows = Vec::new();
    for (at, a) in domains.iter().enumerate() {
        for b in &domains[at + 1..] {
            let value = jensen_shannon(&a.estimate, &b.estimate);
            // Each has its own sequences and draws, so the resamples pair up in any order.
            let mut values: Vec<f64> = std::iter::zip(&a.resampled, &b.resampled)
                .map(|(a, b)| jensen_shannon(a, b))
                .collect();
            let fewer = std::cmp::min_by_key(a, b, |domain| domain.scope.units.len());
            let both =
                fewer.scope.resamples.interval(value, &mut values, (0.0, std::f64::consts::LN_2));
            rows.push(MetricRow {
                layer: Some(layer.layer),
                index: Some(Index::Pair(a.index, b.index)),
                value,
                interval: both,
                chance: Some(
                    (chance * (1.0 / a.tokens + 1.0 / b.tokens)).min(std::f64::consts::LN_2),
                ),
                ..row.clone()
            });
        }
    }
    rows
}

fn distribution(counts: &[f64]) -> Option<Vec<f64>> {
    let total: f64 = counts.iter().sum();
    (total > 0.0).then(|| counts.iter().map(|count| count / total).collect())
}

/// Jensen-Shannon divergence of two distributions over the same experts, in nats: 0 for equal
/// ones, ln 2 for disjoint ones.
pub fn jensen_shannon(p: &[f64], q: &[f64]) -> f64 {
    let term = |part: f64, middle: f64| {
        if part > 0.0 { part * (part / middle).ln() } else { 0.0 }
    };
    let sum: f64 = std::iter::zip(p, q)
        .map(|(&p, &q)| {
            let middle = (p + q) / 2.0;
            term(p, middle) + term(q, middle)
        })
        .sum();
    (sum / 2.0).clamp(0.0, std::f64::consts::LN_2)
}
