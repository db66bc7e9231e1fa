//! What the first choice in one layer says about that in the next MoE layer.

use super::shared::first_choices::{layers, margins};
use crate::chance::independent_information;
use crate::metric::{Group, Metric, Need};
use crate::parallel;
use crate::row::MetricRow;
use crate::study::{Scope, Study};
use crate::transitions::{LayerTransitions, first_choices};

/// Rows: layer, about it and the next MoE layer; layer x phase; layer x domain. Interval: bootstrap over
/// sequences, first order.
pub(crate) const PATH_INFORMATION: Metric = Metric {
    name: "path_information",
    title: "Information between neighbouring layers",
    group: Group::Structure,
    unit: "bits",
    formula: "sum_ij p_ij log2(p_ij / (p_i q_j)), p_ij the share of tokens whose first choice is i in the \
              layer and j in the next MoE layer",
    chance: "its expectation for independent layers with the same popularity of experts and T tokens, which \
             tends to 0 as T grows",
    source: "Mutual information (Shannon 1948); its bias is (E-1)² / (2 T ln 2) bits where T is large (Miller \
             1955), and is computed cell by cell so that it holds for small T too",
    needs: &[Need::Ids, Need::Layers, Need::FewExperts],
    compute: |study| {
        let of_layer = |transitions: &LayerTransitions| {
            let of_scope = |scope| information(study, transitions, scope);
            study.scopes().iter().filter_map(of_scope).collect::<Vec<_>>()
        };
        parallel::map(study.transitions(), of_layer).concat()
    },
};

fn information(
    study: &Study<'_>,
    transitions: &LayerTransitions,
    scope: &Scope,
) -> Option<MetricRow> {
    let (from, to) = layers(study, transitions);
    let counts = transitions.of_scope(study, scope);
    let (rows, columns) = margins(&counts, to.experts);
    let total: f64 = rows.iter().sum();
    if total <= 0.0 {
        return None;
    }
    // What a token with each transition brings, in bits.
    let bits: Vec<f64> = counts
        .iter()
        .enumerate()
        .map(|(at, &count)| {
            let independent = rows[at / to.experts] * columns[at % to.experts] / total;
            if count == 0 { 0.0 } else { (f64::from(count) / independent).log2() }
        })
        .collect();
    let value =
        std::iter::zip(&counts, &bits).map(|(&n, bits)| f64::from(n) * bits).sum::<f64>() / total;

    let mut influence = vec![0.0; study.groups.len()];
    for (group, run) in study.stretches(scope) {
        let sum = &mut influence[group];
        for token in run {
            if let Some((i, j)) = first_choices(from, to, token) {
                *sum += (bits[i * to.experts + j] - value) / total;
            }
        }
    }
    let influence = scope.of_units(&influence);
    let most = (from.experts.min(to.experts) as f64).log2();
    Some(MetricRow {
        layer: Some(from.layer),
        value,
        interval: scope.resamples.linear_interval(value, &influence, (0.0, most)),
        chance: Some(independent_information(&rows, &columns) / std::f64::consts::LN_2),
        ..study.row(PATH_INFORMATION.name, PATH_INFORMATION.unit, scope)
    })
}
