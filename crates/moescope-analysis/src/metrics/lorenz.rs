//! The Lorenz curve of expert use, on text the ranking did not see.

use crate::counts::{LayerCounts, column_sums};
use crate::data::LayerData;
use crate::metric::{Group, Metric, Need};
use crate::parallel;
use crate::ratio::column_ratios;
use crate::row::{Index, MetricRow};
use crate::study::Study;

/// Rows: layer x size (1 to E). Interval: bootstrap over the sequences of the measuring half, for the
/// ranking that was chosen.
pub(crate) const LORENZ: Metric = Metric {
    name: "lorenz",
    title: "Lorenz curve of expert use",
    group: Group::Balance,
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
    if choose.iter().sum::<f64>() <= 0.0 {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..experts).collect();
    order.sort_by(|&a, &b| choose[b].total_cmp(&choose[a]));
    // Selections of the first m, hottest first, and of all: [U, E + 1].
    let mut served = Vec::with_capacity(measuring.units.len() * (experts + 1));
    for row in counts.rows(&measuring.units, None).chunks_exact(experts.max(1)) {
        let mut sum = 0.0;
        served.extend(order.iter().map(|&expert| {
            sum += row[expert];
            sum
        }));
        served.push(sum);
    }
    let estimates = column_ratios(&served, experts + 1, measuring).unwrap_or_default();
    let row = study.row(LORENZ.name, LORENZ.unit, study.overall());
    (1u32..)
        .zip(estimates)
        .map(|(size, (value, interval))| MetricRow {
            layer: Some(layer.layer),
            index: Some(Index::Size(size)),
            value,
            interval,
            chance: Some(f64::from(size) / experts as f64),
            ..row.clone()
        })
        .collect()
}
