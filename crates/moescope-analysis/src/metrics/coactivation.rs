//! How often two experts run for the same token.

use super::shared::strongest_pairs::{self, BOTH, GIVEN_I, GIVEN_J, Sums};
use crate::metric::{Group, Metric, Need};
use crate::ratio::with_rare_events;
use crate::row::{Index, MetricRow};
use crate::study::Study;

/// Rows: layer x pair (i, j), for the strongest pairs of the layer in both directions; layer x phase x
/// pair and layer x domain x pair for the same ones. Interval: bootstrap over the sequences of the
/// measuring half.
pub(crate) const COACTIVATION: Metric = Metric {
    name: "coactivation",
    title: "Co-activation",
    group: Group::Structure,
    unit: "ratio",
    formula: "P(j given i) = N_ij / N_i over the tokens of one half of the sequences, for the 10 pairs of \
              the layer that stand out most in the other half",
    chance: "(k-1)/(E-1)",
    source: "Muennighoff et al. 2024, OLMoE, section 5 (arXiv 2409.02060). Pairs are chosen and measured \
             on different text: the strongest of E (E-1) / 2 pairs of noise would look strong too",
    needs: &[Need::Ids, Need::FewExperts],
    compute,
};

fn compute(study: &Study<'_>) -> Vec<MetricRow> {
    strongest_pairs::rows(study, |layer, pair, measured, resampled, scope| {
        let chance = (layer.top_k as f64 - 1.0) / (layer.experts as f64 - 1.0);
        let row = study.row(COACTIVATION.name, COACTIVATION.unit, scope);
        [(pair.0, pair.1, GIVEN_I), (pair.1, pair.0, GIVEN_J)]
            .into_iter()
            .filter_map(|(i, j, given)| {
                let share = |sums: &Sums| sums[BOTH] / sums[given];
                let value = share(measured);
                let mut values: Vec<f64> = resampled.iter().map(share).collect();
                value.is_finite().then(|| MetricRow {
                    layer: Some(layer.layer),
                    index: Some(Index::Pair(i, j)),
                    value,
                    interval: with_rare_events(
                        scope.resamples.interval(value, &mut values, (0.0, 1.0)),
                        measured[BOTH],
                        measured[given],
                    ),
                    chance: Some(chance),
                    ..row.clone()
                })
            })
            .collect()
    })
}
