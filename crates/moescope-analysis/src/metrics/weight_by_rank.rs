//! What each rank of the choice brings.

use super::shared::means::token_sums;
use crate::metric::{Group, Metric, Need};
use crate::parallel;
use crate::row::{Index, MetricRow};
use crate::study::Study;

/// Rows: layer x rank; layer x phase x rank; layer x domain x rank. Interval: bootstrap over sequences.
pub(crate) const WEIGHT_BY_RANK: Metric = Metric {
    name: "weight_by_rank",
    title: "Weight by rank",
    group: Group::Structure,
    unit: "ratio",
    formula: "mean over tokens of |g_r| / sum_r |g_r|, g the weights as applied, r the rank from 0",
    chance: "1/k: all selected experts count the same",
    source: "Share of the mixture that each rank brings; it tells what a smaller k would lose",
    needs: &[Need::Weights],
    compute: weight_by_rank,
};

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
            for scope in study.scopes() {
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
