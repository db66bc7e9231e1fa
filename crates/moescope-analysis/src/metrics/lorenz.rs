//! The Lorenz curve of expert use, on text the ranking did not see.

use crate::counts::{LayerCounts, column_sums};
use crate::data::LayerData;
use crate::metric::{Metric, Need};
use crate::parallel;
use crate::row::{Index, MetricRow};
use crate::study::Study;

/// Rows: layer x size (1 to E). Interval: bootstrap over the sequences of the measuring half, for the
/// ranking that was chosen.
pub(crate) const LORENZ: Metric = Metric {
    name: "lorenz",
    title: "Lorenz curve of expert use",
    unit: "ratio",
    formula: "share of the selections in one half of the sequences that the m experts most used in the \
              other half serve; m from 1 to E",
    chance: "m/E",
    source: "Lorenz 1905, with the hottest first. The hot set is chosen on one half of the sequences and \
             measured on the other, so sampling noise alone gives the diagonal",
    needs: &[Need::Ids],
    compute,
};

fn compute(study: &Study<'_>) -> Vec<MetricRow> {
    parallel::map(&study.counted(), |(layer, counts)| of_layer(study, layer, counts)).concat()
}

fn of_layer(study: &Study<'_>, layer: &LayerData, counts: &LayerCounts) -> Vec<MetricRow> {
    let experts = layer.experts;
    let [choosing, measuring] = study.halves();
    let choose = column_sums(&counts.rows(&choosing.units, None), experts);
    let mut order: Vec<usize> = (0..experts).collect();
    order.sort_by(|&a, &b| choose[b].total_cmp(&choose[a]));
    // [U, E], hottest first.
    let mut rows = counts.rows(&measuring.units, None);
    let mut unit = vec![0.0; experts];
    for row in rows.chunks_exact_mut(experts.max(1)) {
        for (to, &expert) in unit.iter_mut().zip(&order) {
            *to = row[expert];
        }
        row.copy_from_slice(&unit);
    }
    let estimate = served(&column_sums(&rows, experts));
    if choose.iter().sum::<f64>() <= 0.0 || estimate.iter().any(|share| share.is_nan()) {
        return Vec::new();
    }
    let resamples = &measuring.resamples;
    let mut resampled = vec![Vec::with_capacity(resamples.len()); experts];
    resamples.each_sum(resamples.len(), &rows, experts, |_, sums| {
        for (values, share) in resampled.iter_mut().zip(served(sums)) {
            values.push(share);
        }
    });
    let row = study.row(LORENZ.name, LORENZ.unit, study.overall());
    (1u32..)
        .zip(&estimate)
        .zip(&mut resampled)
        .map(|((size, &value), values)| MetricRow {
            layer: Some(layer.layer),
            index: Some(Index::Size(size)),
            value,
            interval: resamples.interval(value, values, (0.0, 1.0)),
            chance: Some(f64::from(size) / experts as f64),
            ..row.clone()
        })
        .collect()
}

/// Share of all counts in the first m, for each m; NaN where there are none.
fn served(counts: &[f64]) -> Vec<f64> {
    let total: f64 = counts.iter().sum();
    let mut sum = 0.0;
    counts
        .iter()
        .map(|count| {
            sum += count;
            sum / total
        })
        .collect()
}
