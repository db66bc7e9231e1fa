//! How far the pairs of a layer are from what popularity explains.

use super::shared::pair_fit::Fit;
use crate::chance::poisson_deviation;
use crate::data::LayerData;
use crate::metric::{Group, Metric, Need};
use crate::pairs::LayerPairs;
use crate::parallel;
use crate::row::MetricRow;
use crate::study::{Scope, Study};

/// Rows: layer; layer x phase; layer x domain. Interval: bootstrap over sequences, first order.
pub(crate) const COACTIVATION_EXCESS: Metric = Metric {
    name: "coactivation_excess",
    title: "Co-activation beyond popularity",
    group: Group::Structure,
    unit: "ratio",
    formula: "sum_(i<j) |N_ij - m_ij| / (2 sum_(i<j) N_ij), m_ij = a_i a_j the counts that the popularity \
              of the experts alone explains: sum_j m_ij = sum_j N_ij for every i",
    chance: "its expectation for T tokens, which tends to 0 as T grows",
    source: "Total variation distance from quasi-independence (Goodman 1968): the share of co-activations \
             that would have to fall on other pairs to leave no structure",
    needs: &[Need::Ids, Need::FewExperts],
    compute: |study| {
        parallel::map(study.pairs(), |pairs| {
            let of_scope = |scope| of_scope(study, pairs, scope);
            study.scopes().iter().filter_map(of_scope).collect::<Vec<_>>()
        })
        .concat()
    },
};

fn of_scope(study: &Study<'_>, pairs: &LayerPairs, scope: &Scope) -> Option<MetricRow> {
    let layer = &study.data.layers[pairs.place];
    let experts = layer.experts;
    // With three experts, popularity explains any three counts.
    if experts < 4 {
        return None;
    }
    let counts = pairs.of_scope(study, scope);
    let fit = Fit::new(&counts, experts);
    let spread = residual_spread(experts, layer.top_k);
    let (mut total, mut distance, mut noise) = (0.0, 0.0, 0.0);
    let mut signs = vec![0.0; experts * experts];
    for i in 0..experts {
        for j in i + 1..experts {
            let (count, expected) =
                (f64::from(counts[i * experts + j]), fit.expected[i * experts + j]);
            total += count;
            distance += (count - expected).abs();
            noise += poisson_deviation(expected) * spread;
            let sign = if count > expected { 1.0 } else { -1.0 };
            signs[i * experts + j] = sign;
            signs[j * experts + i] = sign;
        }
    }
    if total <= 0.0 {
        return None;
    }
    let value = distance / (2.0 * total);
    let influence = influence(study, layer, scope, &fit.residual_weights(&signs));
    Some(MetricRow {
        layer: Some(layer.layer),
        value,
        interval: scope.resamples.linear_interval(value, &influence, (0.0, 1.0)),
        chance: Some((noise / (2.0 * total)).min(1.0)),
        ..study.row(COACTIVATION_EXCESS.name, COACTIVATION_EXCESS.unit, scope)
    })
}

/// Standard deviation of `N_ij - m_ij` over that of a Poisson number with the same mean, under
/// uniform routing with k of E.
///
/// The counts of pairs under uniform routing have the symmetry of a Johnson scheme: with P2, P3, P4
/// the chance of 2, 3, 4 given experts in one token, what is left when the popularity of single
/// experts is taken out has the variance T (P2 - 2 P3 + P4) in each of its E (E-3) / 2 dimensions,
/// spread over E (E-1) / 2 pairs.
fn residual_spread(experts: usize, top_k: usize) -> f64 {
    let (e, k) = (experts as f64, top_k as f64);
    // Of P2, so P2 itself is 1.
    let p3 = (k - 2.0) / (e - 2.0);
    let p4 = p3 * (k - 3.0) / (e - 3.0);
    ((1.0 - 2.0 * p3 + p4) * (e - 3.0) / (e - 1.0)).max(0.0).sqrt()
}

/// What each group of the scope moves the value by, `[U]`.
fn influence(study: &Study<'_>, layer: &LayerData, scope: &Scope, weights: &[f32]) -> Vec<f64> {
    let experts = layer.experts;
    // Weighted and plain number of pairs.
    let mut sums = vec![[0.0f64; 2]; study.groups.len()];
    for (group, run) in study.stretches(scope) {
        let sum = &mut sums[group];
        for token in run {
            let selected = layer.selected(token);
            let mut weighted = 0.0f32;
            for (rank, &expert) in selected.iter().enumerate() {
                let row = &weights[usize::from(expert) * experts..][..experts];
                for &other in &selected[rank + 1..] {
                    weighted += row[usize::from(other)];
                }
            }
            sum[0] += f64::from(weighted);
            sum[1] += (selected.len() * selected.len().saturating_sub(1) / 2) as f64;
        }
    }
    let total = sums.iter().fold([0.0, 0.0], |all, sum| [all[0] + sum[0], all[1] + sum[1]]);
    let mean = total[0] / total[1];
    let influence: Vec<f64> =
        sums.iter().map(|sum| (sum[0] - mean * sum[1]) / (2.0 * total[1])).collect();
    scope.of_units(&influence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_one_token_are_dependent() {
        // k = 2: each token is one pair, so only the popularity is taken out.
        assert!((residual_spread(16, 2) - (13.0f64 / 15.0).sqrt()).abs() < 1e-12);
        // All of E - 1 experts but one: which one is left out says everything, and is popularity.
        assert!(residual_spread(16, 15) < 1e-6);
    }
}
