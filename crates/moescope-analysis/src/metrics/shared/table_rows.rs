//! Rows of a table of ratios, one for each column.

use crate::data::LayerData;
use crate::metric::Metric;
use crate::ratio::Estimate;
use crate::row::{Index, MetricRow};
use crate::study::{Scope, Study};

/// Rows of one layer in one scope, from the estimates of its columns: of each that has a value and for
/// which `of` gives the coordinate and the chance level.
pub(crate) fn table_rows(
    study: &Study<'_>,
    metric: &Metric,
    layer: &LayerData,
    scope: &Scope,
    estimates: Vec<Option<Estimate>>,
    of: impl Fn(usize) -> Option<(Index, f64)>,
) -> Vec<MetricRow> {
    let row = study.row(metric.name, metric.unit, scope);
    estimates
        .into_iter()
        .enumerate()
        .filter_map(|(column, estimate)| {
            let ((value, interval), (index, chance)) = (estimate?, of(column)?);
            Some(MetricRow {
                layer: Some(layer.layer),
                index: Some(index),
                value,
                interval,
                chance: Some(chance),
                ..row.clone()
            })
        })
        .collect()
}
