//! T: how many tokens the values of a layer rest on.

use crate::metric::{Group, Metric, Need};
use crate::row::MetricRow;
use crate::study::Study;

/// Rows: layer; layer x phase; layer x domain. No interval: it is a count of what is there.
pub(crate) const TOKENS: Metric = Metric {
    name: "tokens",
    title: "Tokens routed",
    group: Group::Balance,
    unit: "tokens",
    formula: "T = tokens whose experts were recorded at the layer",
    chance: "",
    source: "The base of every other value: with few tokens, uneven counts mean little",
    needs: &[Need::Ids],
    compute,
};

fn compute(study: &Study<'_>) -> Vec<MetricRow> {
    let mut rows = Vec::new();
    for (layer, counts) in study.counted() {
        for scope in study.scopes() {
            let tokens: f64 = counts.tokens(&scope.units, scope.phase).iter().sum();
            let row = study.row(TOKENS.name, TOKENS.unit, scope);
            rows.push(MetricRow { layer: Some(layer.layer), value: tokens, ..row });
        }
    }
    rows
}
