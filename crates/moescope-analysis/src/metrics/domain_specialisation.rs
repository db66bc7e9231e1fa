//! Which experts serve which domains.

use crate::counts::LayerCounts;
use crate::data::LayerData;
use crate::metric::{Group, Metric, Need};
use crate::parallel;
use crate::ratio::column_ratios;
use crate::row::{Index, MetricRow};
use crate::study::{Scope, Study};

/// Rows: layer x domain x expert. Interval: bootstrap over the sequences of the domain.
pub(crate) const DOMAIN_SPECIALISATION: Metric = Metric {
    name: "domain_specialisation",
    title: "Domain specialisation",
    group: Group::Structure,
    unit: "ratio",
    formula: "tokens of the domain that selected e / tokens of the domain; the sum over experts is k",
    chance: "k/E",
    source: "Muennighoff et al. 2024, OLMoE, section 5 (arXiv 2409.02060)",
    needs: &[Need::Ids],
    compute,
};

fn compute(study: &Study<'_>) -> Vec<MetricRow> {
    parallel::map(&study.counted(), |(layer, counts)| {
        study
            .domains()
            .flat_map(|(domain, scope)| of_domain(study, layer, counts, domain, scope))
            .collect::<Vec<_>>()
    })
    .concat()
}

fn of_domain(
    study: &Study<'_>,
    layer: &LayerData,
    counts: &LayerCounts,
    domain: u16,
    scope: &Scope,
) -> Vec<MetricRow> {
    let experts = layer.experts;
    // [U, E + 1]: selections per expert, then tokens.
    let mut rows = Vec::with_capacity(scope.units.len() * (experts + 1));
    let tokens = counts.tokens(&scope.units, None);
    let selections = counts.rows(&scope.units, None);
    for (unit, tokens) in selections.chunks_exact(experts.max(1)).zip(tokens) {
        rows.extend_from_slice(unit);
        rows.push(tokens);
    }
    let estimates = column_ratios(&rows, experts + 1, scope).unwrap_or_default();
    let row = study.row(DOMAIN_SPECIALISATION.name, DOMAIN_SPECIALISATION.unit, scope);
    (0..)
        .zip(estimates)
        .map(|(expert, (value, interval))| MetricRow {
            layer: Some(layer.layer),
            index: Some(Index::Expert(expert)),
            domain: Some(study.data.domains[usize::from(domain)].clone()),
            value,
            interval,
            chance: Some(layer.top_k as f64 / experts as f64),
            ..row.clone()
        })
        .collect()
}
