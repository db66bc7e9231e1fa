//! How well the experts of one layer foretell those of the next MoE layer.

use crate::data::LayerData;
use crate::metric::Metric;
use crate::row::MetricRow;
use crate::study::Study;

/// Rows of one of the two statistics, by its column.
pub(crate) fn rows(
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
