//! How much more often two experts run together than their popularity explains.

use super::shared::strongest_pairs::{self, BOTH, GIVEN_I, GIVEN_J, Sums, TOKENS, uniform_lift};
use crate::metric::{Group, Metric, Need};
use crate::ratio::with_rare_events;
use crate::row::{Index, MetricRow};
use crate::study::Study;

/// Rows: as `coactivation`, i < j. Interval: bootstrap over the sequences of the measuring half.
pub(crate) const COACTIVATION_LIFT: Metric = Metric {
    name: "coactivation_lift",
    title: "Co-activation lift",
    group: Group::Structure,
    unit: "ratio",
    formula: "P(j given i) / P(j) = N_ij T / (N_i N_j), for the pairs of `coactivation`",
    chance: "E (k-1) / (k (E-1)): a little below 1, since a token never selects an expert twice",
    source: "Lift of association rules (Brin, Motwani, Ullman and Tsur 1997), for pairs of experts",
    needs: &[Need::Ids, Need::FewExperts],
    compute,
};

fn compute(study: &Study<'_>) -> Vec<MetricRow> {
    strongest_pairs::rows(study, |layer, pair, measured, resampled, scope| {
        let lift = |sums: &Sums| sums[BOTH] * sums[TOKENS] / (sums[GIVEN_I] * sums[GIVEN_J]);
        let value = lift(measured);
        let mut values: Vec<f64> = resampled.iter().map(lift).collect();
        let interval = scope.resamples.interval(value, &mut values, (0.0, f64::MAX));
        // As a share of tokens with both, given how many have either.
        let scale = measured[TOKENS] * measured[TOKENS] / (measured[GIVEN_I] * measured[GIVEN_J]);
        let share = interval.map(|(low, high)| (low / scale, high / scale));
        let interval = with_rare_events(share, measured[BOTH], measured[TOKENS])
            .map(|(low, high)| (low * scale, high * scale));
        let row = MetricRow {
            layer: Some(layer.layer),
            index: Some(Index::Pair(pair.0, pair.1)),
            value,
            interval,
            chance: Some(uniform_lift(layer.experts, layer.top_k)),
            ..study.row(COACTIVATION_LIFT.name, COACTIVATION_LIFT.unit, scope)
        };
        value.is_finite().then_some(row).into_iter().collect()
    })
}
