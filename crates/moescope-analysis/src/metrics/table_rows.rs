//! Rows of a table of ratios, one for each column.

use crate::data::LayerData;
use crate::metric::Metric;
use crate::ratio::RatioTable;
use crate::row::{Index, MetricRow};
use crate::study::{Scope, Study};

/// Rows of one layer in one scope, within `bounds`: of each column that has a value and for which
/// `of` gives the coordinate and the chance level.
pub(super) fn table_rows(
    study: &Study<'_>,
    metric: &Metric,
    layer: &LayerData,
    scope: &Scope,
    table: &RatioTable,
    bounds: (f64, f64),
    of: impl Fn(usize) -> Option<(Index, f64)>,
) -> Vec<MetricRow> {
    let row = study.row(metric.name, metric.unit, scope);
    let estimates = table.ratios(scope, bounds).into_iter().enumerate();
    estimates
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
