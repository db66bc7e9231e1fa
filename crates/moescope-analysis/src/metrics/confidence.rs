//! How sure the router is of its choice.

use crate::data::LayerData;
use crate::metric::{Metric, Need};
use crate::parallel;
use crate::ratio::RatioSums;
use crate::row::{Index, MetricRow};
use crate::study::Study;

/// Rows: layer; layer x phase; layer x domain. Interval: bootstrap over sequences.
pub(crate) const ROUTER_ENTROPY: Metric = Metric {
    name: "router_entropy",
    title: "Router entropy",
    unit: "nats",
    formula: "mean over tokens of -sum_e r_e ln r_e, r the softmax over all E experts",
    chance: "ln E: the router does not distinguish the experts",
    source: "Shannon 1948; the lower, the surer the router",
    needs: &[Need::Entropy],
    compute: |study| {
        means(study, &ROUTER_ENTROPY, |layer| {
            layer.entropy.as_deref().map(|values| (values, (layer.experts as f64).ln()))
        })
    },
};

/// Rows: layer; layer x phase; layer x domain. Interval: bootstrap over sequences.
pub(crate) const ROUTER_MARGIN: Metric = Metric {
    name: "router_margin",
    title: "Router margin",
    unit: "probability",
    formula: "mean over tokens of r_(k) - r_(k+1): how far the last selected expert is ahead of the \
              first one left out",
    chance: "0: the router does not distinguish the experts",
    source: "The change of probabilities that would change the set; compare it with rounding errors",
    needs: &[Need::Margin],
    compute: |study| {
        means(study, &ROUTER_MARGIN, |layer| layer.margin.as_deref().map(|values| (values, 0.0)))
    },
};

/// Rows: layer x rank; layer x phase x rank. Interval: bootstrap over sequences.
pub(crate) const WEIGHT_BY_RANK: Metric = Metric {
    name: "weight_by_rank",
    title: "Weight by rank",
    unit: "ratio",
    formula: "mean over tokens of |g_r| / sum_r |g_r|, g the weights as applied, r the rank from 0",
    chance: "1/k: all selected experts count the same",
    source: "Share of the mixture that each rank brings; it tells what a smaller k would lose",
    needs: &[Need::Weights],
    compute: weight_by_rank,
};

/// Means of a per-token column, with its chance level, for each layer that has it.
fn means(
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

fn weight_by_rank(study: &Study<'_>) -> Vec<MetricRow> {
    parallel::map(&study.data.layers, |layer| {
        let Some(weights) = layer.weights.as_deref() else {
            return Vec::new();
        };
        let k = layer.top_k;
        // Of each token, what its weights are divided by; NaN where it has none.
        let totals: Vec<f32> = weights
            .chunks_exact(k.max(1))
            .map(|weights| weights.iter().filter(|w| !w.is_nan()).map(|w| w.abs()).sum::<f32>())
            .map(|total| if total > 0.0 { total } else { f32::NAN })
            .collect();
        let mut rows = Vec::new();
        for rank in 0..k {
            let sums = token_sums(study, |token| {
                let share = weights[token * k + rank].abs() / totals[token];
                (!share.is_nan()).then_some(f64::from(share))
            });
            for scope in study.phases() {
                if let Some((value, interval)) = sums.ratio(scope, (0.0, 1.0)) {
                    rows.push(MetricRow {
                        layer: Some(layer.layer),
                        index: Some(Index::Rank(rank as u16)),
                        value,
                        interval,
                        chance: Some(1.0 / k as f64),
                        ..study.row(WEIGHT_BY_RANK.name, WEIGHT_BY_RANK.unit, scope)
                    });
                }
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
