//! How well the experts of one layer foretell those of the next MoE layer.

use crate::chance::sets;
use crate::data::LayerData;
use crate::metric::{Metric, Need};
use crate::row::MetricRow;
use crate::study::Study;

/// Rows: layer, about predicting the next MoE layer from it; layer x phase; layer x domain. Interval:
/// bootstrap over sequences.
pub(crate) const NEXT_LAYER_RECALL: Metric = Metric {
    name: "next_layer_recall",
    title: "Next-layer recall",
    unit: "ratio",
    formula: "mean over tokens of |F_t ∩ S_t(l+1)| / k, F_t the k experts j with the largest sum over i in \
              S_t(l) of P(j given i); P counted on one half of the sequences, t from the other",
    chance: "k/E",
    source: "Prediction by transition counts, as prefetchers of MoE experts do, on text they have not seen. \
             At most 2^18 tokens, evenly spread, are looked at per layer",
    needs: &[Need::Ids, Need::Layers],
    compute: |study| rows(study, &NEXT_LAYER_RECALL, 0, |to| to.top_k as f64 / to.experts as f64),
};

/// Rows as `next_layer_recall`.
pub(crate) const NEXT_LAYER_EXACT: Metric = Metric {
    name: "next_layer_exact",
    title: "Next layer predicted in full",
    unit: "ratio",
    formula: "share of tokens with F_t = S_t(l+1), F_t as in `next_layer_recall`",
    chance: "1 / (number of sets of k out of E)",
    source: "A prefetch that needs nothing more",
    needs: &[Need::Ids, Need::Layers],
    compute: |study| rows(study, &NEXT_LAYER_EXACT, 1, |to| 1.0 / sets(to.experts, to.top_k)),
};

fn rows(
    study: &Study<'_>,
    metric: &Metric,
    column: usize,
    chance: fn(&LayerData) -> f64,
) -> Vec<MetricRow> {
    let mut rows = Vec::new();
    for next in &study.next_layer().sets {
        let from = &study.data.layers[next.place];
        let to = &study.data.layers[next.place + 1];
        for (scope, estimates) in study.scopes().iter().zip(&next.estimates) {
            if let Some((value, interval)) = estimates[column] {
                rows.push(MetricRow {
                    layer: Some(from.layer),
                    value,
                    interval,
                    chance: Some(chance(to)),
                    ..study.row(metric.name, metric.unit, scope)
                });
            }
        }
    }
    rows
}
