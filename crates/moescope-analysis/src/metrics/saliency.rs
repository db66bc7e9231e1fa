//! Saliency of experts, and what pruning the least salient would remove.

use crate::counts::column_sums;
use crate::data::LayerData;
use crate::metric::{Metric, Need};
use crate::parallel;
use crate::row::{Index, MetricRow};
use crate::simulate::saliency::{Saliency, removed};
use crate::study::{Scope, Study};

const NEEDS: &[Need] = &[Need::Ids, Need::Weights, Need::OutputNorms];

/// Rows: layer x expert. Interval: bootstrap over sequences.
pub(crate) const SALIENCY_REAP: Metric = Metric {
    name: "saliency_reap",
    title: "Saliency (REAP)",
    unit: "norm",
    formula: "mean over tokens that selected e of g_e(x) norm2(f_e(x)), g renormalised over the top-k, f_e(x) \
              the output of e before its weight; 0 for an expert that was never selected",
    chance: "",
    source: "Router-weighted Expert Activation Pruning (Lasby et al. 2025, arXiv 2510.13999)",
    needs: NEEDS,
    compute: |study| by_expert(study, &SALIENCY_REAP, Saliency::reap),
};

/// Rows: layer x expert. Interval: bootstrap over sequences.
pub(crate) const SALIENCY_EAN: Metric = Metric {
    name: "saliency_ean",
    title: "Saliency (EAN)",
    unit: "norm",
    formula: "sum over tokens that selected e of norm2(f_e(x))",
    chance: "",
    source: "Expert activation norm, a baseline of REAP (arXiv 2510.13999); frequency, the other one, is \
             `utilisation`",
    needs: NEEDS,
    compute: |study| by_expert(study, &SALIENCY_EAN, |saliency| saliency.norms.clone()),
};

/// Rows: layer x size (n = 1..E). Interval: bootstrap over sequences, the ranking kept.
pub(crate) const PRUNED_TRAFFIC: Metric = Metric {
    name: "pruned_traffic",
    title: "Traffic removed by pruning",
    unit: "ratio",
    formula: "share of the selections that fall on the n experts with the least REAP saliency",
    chance: "n/E",
    source: "What the remaining experts would have to take over; ranked and measured on the same tokens",
    needs: NEEDS,
    compute: |study| by_size(study, &PRUNED_TRAFFIC, |saliency| saliency.selections.clone()),
};

/// Rows as `pruned_traffic`.
pub(crate) const PRUNED_SALIENCY: Metric = Metric {
    name: "pruned_saliency",
    title: "Saliency removed by pruning",
    unit: "ratio",
    formula: "share of the sum of REAP saliencies that the n experts with the least of it have",
    chance: "n/E",
    source: "Against pruned_traffic: what is lost for what is saved",
    needs: NEEDS,
    compute: |study| by_size(study, &PRUNED_SALIENCY, Saliency::reap),
};

/// A statistic of sums, by expert or size.
type Statistic = fn(&Saliency) -> Vec<f64>;

fn by_expert(study: &Study<'_>, metric: &Metric, of: Statistic) -> Vec<MetricRow> {
    let index = |expert: usize| Index::Expert(expert as u16);
    rows(study, metric, index, (0.0, f64::MAX), |_, saliency| of(saliency))
}

fn by_size(study: &Study<'_>, metric: &Metric, of: Statistic) -> Vec<MetricRow> {
    let index = |place: usize| Index::Size(place as u32 + 1);
    rows(study, metric, index, (0.0, 1.0), |order, saliency| removed(&of(saliency), order))
}

/// One row per value of a statistic, which gets the ranking of the whole run and the sums of it or of
/// a resample.
fn rows(
    study: &Study<'_>,
    metric: &Metric,
    index: impl Fn(usize) -> Index + Sync,
    bounds: (f64, f64),
    of: impl Fn(&[usize], &Saliency) -> Vec<f64> + Sync,
) -> Vec<MetricRow> {
    let scope = study.overall();
    let row = study.row(metric.name, metric.unit, scope);
    let of_layer = |layer: &LayerData| {
        let sums = sums(study, layer, scope)?;
        let width = 3 * layer.experts;
        let whole = split(&column_sums(&sums, width));
        let order = whole.least_salient();
        let values = of(&order, &whole);
        let mut resampled = vec![Vec::with_capacity(scope.resamples.len()); values.len()];
        let mut drawn = vec![0.0; width];
        for r in 0..scope.resamples.len() {
            scope.resamples.sums(r, &sums, &mut drawn);
            for (all, value) in resampled.iter_mut().zip(of(&order, &split(&drawn))) {
                all.push(value);
            }
        }
        let to_row = |(place, (value, resampled)): (usize, (f64, &mut Vec<f64>))| MetricRow {
            layer: Some(layer.layer),
            index: Some(index(place)),
            value,
            interval: scope.resamples.interval(value, resampled, bounds),
            chance: match index(place) {
                Index::Size(pruned) => Some(f64::from(pruned) / layer.experts as f64),
                _ => None,
            },
            ..row.clone()
        };
        Some(values.into_iter().zip(&mut resampled).enumerate().map(to_row).collect::<Vec<_>>())
    };
    parallel::map(&study.data.layers, of_layer).into_iter().flatten().flatten().collect()
}

/// Selections, norms and weighted norms by group, `[U, 3E]`.
fn sums(study: &Study<'_>, layer: &LayerData, scope: &Scope) -> Option<Vec<f64>> {
    let mut groups = vec![Saliency::new(layer.experts); study.groups.len()];
    for (index, sequence) in study.data.sequences.iter().enumerate() {
        let group = &mut groups[study.groups.of_sequence(index)];
        group.add(layer, sequence.start..sequence.end)?;
    }
    let of_unit = |&group: &u32| {
        let Saliency { selections, norms, weighted } = &groups[group as usize];
        [selections.as_slice(), norms, weighted].concat()
    };
    Some(scope.units.iter().flat_map(of_unit).collect())
}

fn split(sums: &[f64]) -> Saliency {
    let (selections, rest) = sums.split_at(sums.len() / 3);
    let (norms, weighted) = rest.split_at(rest.len() / 2);
    Saliency { selections: selections.to_vec(), norms: norms.to_vec(), weighted: weighted.to_vec() }
}
