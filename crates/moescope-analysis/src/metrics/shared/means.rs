//! Means of what is recorded for every token.

use crate::data::LayerData;
use crate::metric::Metric;
use crate::parallel;
use crate::ratio::RatioSums;
use crate::row::MetricRow;
use crate::study::Study;

/// Means of a per-token column, with its chance level, for each layer that has it.
pub(crate) fn means(
    study: &Study<'_>,
    metric: &Metric,
    column: impl for<'d> Fn(&'d LayerData) -> Option<(&'d [f32], f64)> + Sync,
) -> Vec<MetricRow> {
    parallel::map(&study.data.layers, |layer| {
        let Some((values, chance)) = column(layer) else {
            return Vec::new();
        };
        let sums = token_sums(study, |token| {
            let value = values[token];
            (!value.is_nan()).then_some(f64::from(value))
        });
        let mut rows = Vec::new();
        for scope in study.scopes() {
            if let Some((value, interval)) = sums.ratio(scope, (0.0, f64::MAX)) {
                let row = study.row(metric.name, metric.unit, scope);
                let layer = Some(layer.layer);
                rows.push(MetricRow { layer, value, interval, chance: Some(chance), ..row });
            }
        }
        rows
    })
    .concat()
}

/// Sums and numbers of a per-token value, per group and phase.
pub(crate) fn token_sums(study: &Study<'_>, value: impl Fn(usize) -> Option<f64>) -> RatioSums {
    let mut sums = RatioSums::new(study.groups.len());
    for (index, sequence) in study.data.sequences.iter().enumerate() {
        let group = study.groups.of_sequence(index);
        for token in sequence.start..sequence.end {
            if let Some(value) = value(token) {
                sums.add(group, study.data.tokens.phase[token], value, 1.0);
            }
        }
    }
    sums
}
