//! Experts that no token selected.

use crate::counts::column_sums;
use crate::metric::{Group, Metric, Need};
use crate::row::MetricRow;
use crate::study::Study;

/// Rows: layer; layer x phase; layer x domain. T is in the rows of `tokens` with the same
/// coordinates: with few tokens an unused expert means nothing, which the chance level shows.
///
/// There is no interval: a resample holds no token that the run does not, so resampling can only
/// raise this number.
pub(crate) const DEAD_EXPERTS: Metric = Metric {
    name: "dead_experts",
    title: "Dead experts",
    group: Group::Balance,
    unit: "experts",
    formula: "number of experts with c_e = 0, to be read beside T",
    chance: "E (1 - k/E)^T",
    source: "Expected number of experts that T independent draws of k out of E leave out",
    needs: &[Need::Ids],
    compute,
};

fn compute(study: &Study<'_>) -> Vec<MetricRow> {
    let mut rows = Vec::new();
    for (layer, counts) in study.counted() {
        for scope in study.scopes() {
            let tokens: f64 = counts.tokens(&scope.units, scope.phase).iter().sum();
            if tokens == 0.0 {
                continue;
            }
            let sums = column_sums(&counts.rows(&scope.units, scope.phase), layer.experts);
            let experts = layer.experts as f64;
            rows.push(MetricRow {
                layer: Some(layer.layer),
                value: sums.iter().filter(|&&count| count == 0.0).count() as f64,
                chance: Some(experts * (1.0 - layer.top_k as f64 / experts).powf(tokens)),
                ..study.row(DEAD_EXPERTS.name, DEAD_EXPERTS.unit, scope)
            });
        }
    }
    rows
}
