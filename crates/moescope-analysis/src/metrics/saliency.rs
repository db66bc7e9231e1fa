//! Saliency of experts, and what pruning the least salient would remove.

use crate::chance::UniformCounts;
use crate::counts::column_sums;
use crate::data::LayerData;
use crate::metric::{Metric, Need};
use crate::parallel;
use crate::ratio::Estimate;
use crate::row::{Index, MetricRow};
use crate::simulate::saliency::{Saliency, removed};
use crate::study::Study;

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
    compute: |study| rows(study, &SALIENCY_REAP, expert, |layer| &layer.reap, |_| None),
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
    compute: |study| rows(study, &SALIENCY_EAN, expert, |layer| &layer.ean, |_| None),
};

/// Rows: layer x size (n = 1..E). Interval: bootstrap over sequences, the ranking kept.
pub(crate) const PRUNED_TRAFFIC: Metric = Metric {
    name: "pruned_traffic",
    title: "Traffic removed by pruning",
    unit: "ratio",
    formula: "share of the selections that fall on the n experts with the least REAP saliency",
    chance: "as for `pruned_saliency`; about n/E",
    source: "What the remaining experts would have to take over; ranked and measured on the same tokens",
    needs: NEEDS,
    compute: |study| {
        rows(study, &PRUNED_TRAFFIC, size, |layer| &layer.traffic, |layer| Some(&layer.chance[0]))
    },
};

/// Rows as `pruned_traffic`.
pub(crate) const PRUNED_SALIENCY: Metric = Metric {
    name: "pruned_saliency",
    title: "Saliency removed by pruning",
    unit: "ratio",
    formula: "share of the sum of REAP saliencies that the n experts with the least of it have",
    chance: "its expectation if all experts added alike: uniform routing of T tokens, and for every selection \
             a weighted norm with the mean and variance of the layer's. It is below n/E, since the experts \
             that look least are chosen on the tokens that measure them, and tends to n/E as T grows",
    source: "Against pruned_traffic: what is lost for what is saved",
    needs: NEEDS,
    compute: |study| {
        rows(study, &PRUNED_SALIENCY, size, |layer| &layer.saliency, |layer| Some(&layer.chance[1]))
    },
};

/// The four statistics of one layer, from one pass over its tokens and one over the resamples.
pub(crate) struct LayerSaliency {
    /// Model layer.
    layer: u16,
    /// By expert, `[E]`.
    reap: Vec<Estimate>,
    ean: Vec<Estimate>,
    /// By number of experts pruned, `[E]`.
    traffic: Vec<Estimate>,
    saliency: Vec<Estimate>,
    /// Chance levels of the two.
    chance: [Vec<f64>; 2],
}

fn expert(place: usize) -> Index {
    Index::Expert(place as u16)
}

fn size(place: usize) -> Index {
    Index::Size(place as u32 + 1)
}

fn rows(
    study: &Study<'_>,
    metric: &Metric,
    index: fn(usize) -> Index,
    estimates: fn(&LayerSaliency) -> &[Estimate],
    chance: fn(&LayerSaliency) -> Option<&[f64]>,
) -> Vec<MetricRow> {
    let row = study.row(metric.name, metric.unit, study.overall());
    let of_layer = |layer| {
        let chance = chance(layer);
        let to_row = |(place, &(value, interval)): (usize, &Estimate)| MetricRow {
            layer: Some(layer.layer),
            index: Some(index(place)),
            value,
            interval,
            chance: chance.and_then(|chance| chance.get(place).copied()),
            ..row.clone()
        };
        estimates(layer).iter().enumerate().map(to_row).collect::<Vec<_>>()
    };
    study.saliency().iter().flat_map(of_layer).collect()
}

impl LayerSaliency {
    /// Of the layers that recorded weights and norms.
    pub(crate) fn all(study: &Study<'_>) -> Vec<Self> {
        parallel::map(&study.data.layers, |layer| Self::new(study, layer))
            .into_iter()
            .flatten()
            .collect()
    }

    fn new(study: &Study<'_>, layer: &LayerData) -> Option<Self> {
        let scope = study.overall();
        let experts = layer.experts;
        let (units, whole) = sums(study, layer)?;
        let order = whole.least_salient();
        let reap = whole.reap();
        let estimates = [
            reap.clone(),
            whole.norms.clone(),
            removed(&whole.selections, &order),
            removed(&reap, &order),
        ];
        let resamples = &scope.resamples;
        let mut resampled = [(); 4].map(|()| vec![Vec::with_capacity(resamples.len()); experts]);
        let [of_reap, of_ean, of_traffic, of_saliency] = &mut resampled;
        resamples.each_sum(resamples.len(), &units, 3 * experts, |_, sums| {
            let (selections, rest) = sums.split_at(experts);
            let (norms, weighted) = rest.split_at(experts);
            let reap = |expert: usize| {
                let count = selections[expert];
                if count > 0.0 { weighted[expert] / count } else { 0.0 }
            };
            let (traffic, saliency) =
                (selections.iter().sum::<f64>(), (0..experts).map(reap).sum::<f64>());
            let (mut traffic_gone, mut saliency_gone) = (0.0, 0.0);
            for (place, &pruned) in order.iter().enumerate() {
                of_reap[place].push(reap(place));
                of_ean[place].push(norms[place]);
                traffic_gone += selections[pruned];
                saliency_gone += reap(pruned);
                of_traffic[place].push(share(traffic_gone, traffic));
                of_saliency[place].push(share(saliency_gone, saliency));
            }
        });
        let bounds = [(0.0, f64::MAX), (0.0, f64::MAX), (0.0, 1.0), (0.0, 1.0)];
        let mut found = estimates.into_iter().zip(resampled).zip(bounds).map(
            |((values, mut resampled), bounds)| {
                values
                    .into_iter()
                    .zip(&mut resampled)
                    .map(|(value, resampled)| (value, resamples.interval(value, resampled, bounds)))
                    .collect::<Vec<Estimate>>()
            },
        );
        Some(Self {
            layer: layer.layer,
            reap: found.next()?,
            ean: found.next()?,
            traffic: found.next()?,
            saliency: found.next()?,
            chance: chance(layer, &whole),
        })
    }
}

/// A part of a total, as [`removed`] has it: 0 of nothing.
fn share(part: f64, total: f64) -> f64 {
    if total > 0.0 { (part / total).min(1.0) } else { 0.0 }
}

/// Selections, norms and weighted norms by group, `[U, 3E]`, and their sums.
fn sums(study: &Study<'_>, layer: &LayerData) -> Option<(Vec<f64>, Saliency)> {
    let experts = layer.experts;
    let mut groups = vec![Saliency::new(experts); study.groups.len()];
    for (index, sequence) in study.data.sequences.iter().enumerate() {
        let group = &mut groups[study.groups.of_sequence(index)];
        group.add(layer, sequence.start..sequence.end)?;
    }
    let of_unit = |&group: &u32| {
        let Saliency { selections, norms, weighted, .. } = &groups[group as usize];
        [selections.as_slice(), norms, weighted].concat()
    };
    let units: Vec<f64> = study.overall().units.iter().flat_map(of_unit).collect();
    let totals = column_sums(&units, 3 * experts);
    let whole = Saliency {
        selections: totals[..experts].to_vec(),
        norms: totals[experts..2 * experts].to_vec(),
        weighted: totals[2 * experts..].to_vec(),
        squares: groups.iter().map(|group| group.squares).sum(),
    };
    Some((units, whole))
}

/// Uniform runs behind the chance levels.
const DRAWS: usize = 256;

/// Traffic and saliency removed, by number of experts pruned, if all experts added alike.
///
/// The sum of c weighted norms is drawn as a normal number with c times their mean and variance, which
/// is what the sum of many is near.
fn chance(layer: &LayerData, whole: &Saliency) -> [Vec<f64>; 2] {
    let experts = layer.experts;
    let selections: f64 = whole.selections.iter().sum();
    let tokens = (selections / layer.top_k as f64).round() as u64;
    let mut sums = [(); 2].map(|()| vec![0.0; experts]);
    let Some(mut uniform) = UniformCounts::new(experts, layer.top_k).filter(|_| tokens > 0) else {
        return sums;
    };
    let mean = whole.weighted.iter().sum::<f64>() / selections;
    let spread = (whole.squares / selections - mean * mean).max(0.0).sqrt();
    let mut drawn = Saliency::new(experts);
    for _ in 0..DRAWS {
        uniform.draw(tokens, &mut drawn.selections);
        for (weighted, &count) in drawn.weighted.iter_mut().zip(&drawn.selections) {
            *weighted = (count * mean + count.sqrt() * spread * uniform.rng.normal()).max(0.0);
        }
        let order = drawn.least_salient();
        for (sums, values) in sums.iter_mut().zip([&drawn.selections, &drawn.reap()]) {
            for (sum, share) in sums.iter_mut().zip(removed(values, &order)) {
                *sum += share / DRAWS as f64;
            }
        }
    }
    sums
}
