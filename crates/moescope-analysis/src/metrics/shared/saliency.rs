//! Saliency of experts, and what pruning by each ranking of them would remove.

use crate::counts::column_sums;
use crate::data::LayerData;
use crate::metric::{Metric, Need};
use crate::parallel;
use crate::ratio::{Estimate, with_rare_events};
use crate::row::{Index, MetricRow};
use crate::simulate::saliency::{Ranking, Saliency, mean, removed};
use crate::study::{Scope, Study};

/// What REAP takes.
pub(crate) const REAP_NEEDS: &[Need] = &[Need::Ids, Need::Weights, Need::OutputNorms];

/// What EAN takes.
pub(crate) const EAN_NEEDS: &[Need] = &[Need::Ids, Need::OutputNorms];

/// The statistics of one layer, from one pass over its tokens. What takes more than was recorded is empty.
pub(crate) struct LayerSaliency {
    /// Model layer.
    pub(crate) layer: u16,
    /// By expert, `[E]`.
    pub(crate) reap: Vec<Estimate>,
    pub(crate) ean: Vec<Estimate>,
    /// By [`Ranking`], in the order of [`Ranking::ALL`].
    pub(crate) pruned: [Pruned; 3],
}

/// What goes with the experts that a ranking puts last.
#[derive(Default)]
pub(crate) struct Pruned {
    /// Experts over all tokens, the first to go first, `[E]`.
    pub(crate) order: Vec<u16>,
    /// Shares of selections and of REAP saliency by number of experts pruned, `[E]`; ranked on one half of
    /// the sequences, measured on the other.
    traffic: Vec<Estimate>,
    saliency: Vec<Estimate>,
}

/// Rows of a value by expert.
pub(crate) fn expert_rows(
    study: &Study<'_>,
    metric: &Metric,
    estimates: fn(&LayerSaliency) -> &[Estimate],
) -> Vec<MetricRow> {
    rows(study, metric, estimates, |place, _| (Index::Expert(place as u16), None))
}

/// Rows of the traffic that a ranking removes, by number of experts pruned.
pub(crate) fn traffic_rows(study: &Study<'_>, metric: &Metric, ranking: Ranking) -> Vec<MetricRow> {
    rows(study, metric, |layer| &layer.pruned[ranking as usize].traffic, pruned)
}

/// Rows of the REAP saliency that a ranking removes, by number of experts pruned.
pub(crate) fn saliency_rows(
    study: &Study<'_>,
    metric: &Metric,
    ranking: Ranking,
) -> Vec<MetricRow> {
    rows(study, metric, |layer| &layer.pruned[ranking as usize].saliency, pruned)
}

/// Ranked on other tokens, any n of E experts that are alike have n/E of whatever is shared out.
fn pruned(place: usize, experts: usize) -> (Index, Option<f64>) {
    (Index::Size(place as u32 + 1), Some((place + 1) as f64 / experts as f64))
}

fn rows(
    study: &Study<'_>,
    metric: &Metric,
    estimates: impl Fn(&LayerSaliency) -> &[Estimate],
    at: fn(place: usize, experts: usize) -> (Index, Option<f64>),
) -> Vec<MetricRow> {
    let row = study.row(metric.name, metric.unit, study.overall());
    let of_layer = |layer| {
        let estimates = estimates(layer);
        let to_row = |(place, &(value, interval)): (usize, &Estimate)| {
            let (index, chance) = at(place, estimates.len());
            let (layer, index) = (Some(layer.layer), Some(index));
            MetricRow { layer, index, value, interval, chance, ..row.clone() }
        };
        estimates.iter().enumerate().map(to_row).collect::<Vec<_>>()
    };
    study.saliency().iter().flat_map(of_layer).collect()
}

impl LayerSaliency {
    pub(crate) fn all(study: &Study<'_>) -> Vec<Self> {
        parallel::map(&study.data.layers, |layer| Self::new(study, layer))
    }

    fn new(study: &Study<'_>, layer: &LayerData) -> Self {
        let sums = Sums::new(study, layer);
        let [chosen_on, measured_on] = study.halves();
        let (whole, chosen) = (sums.of(study.overall()), sums.of(chosen_on));
        let measured = chosen.selections.iter().any(|&count| count > 0.0).then_some(measured_on);
        let pruned = Ranking::ALL.map(|ranking| {
            let order = whole.least_first(ranking).unwrap_or_default();
            let (traffic, saliency) = measured
                .and_then(|half| Some(sums.removed(half, &chosen.least_first(ranking)?)))
                .unwrap_or_default();
            Pruned {
                order: order.into_iter().map(|expert| expert as u16).collect(),
                traffic,
                saliency,
            }
        });
        let (reap, ean) = sums.by_expert(study.overall());
        Self { layer: layer.layer, reap, ean, pruned }
    }
}

/// Selections, norms and weighted norms by group, as far as they were recorded.
struct Sums {
    experts: usize,
    /// Statistics per expert: 1 to 3.
    kinds: usize,
    /// `[G, kinds E]`
    rows: Vec<f64>,
}

impl Sums {
    fn new(study: &Study<'_>, layer: &LayerData) -> Self {
        let mut groups = vec![Saliency::new(layer); study.groups.len()];
        for (index, sequence) in study.data.sequences.iter().enumerate() {
            groups[study.groups.of_sequence(index)].add(layer, sequence.start..sequence.end);
        }
        let none = Saliency::new(layer);
        let kinds = 1 + usize::from(none.norms.is_some()) + usize::from(none.weighted.is_some());
        let of_group = |Saliency { selections, norms, weighted }| {
            [Some(selections), norms, weighted]
                .into_iter()
                .flatten()
                .flatten()
                .collect::<Vec<f64>>()
        };
        Self {
            experts: layer.experts,
            kinds,
            rows: groups.into_iter().flat_map(of_group).collect(),
        }
    }

    fn width(&self) -> usize {
        self.kinds * self.experts
    }

    /// The rows of a scope, `[U, kinds E]`.
    fn units(&self, scope: &Scope) -> Vec<f64> {
        super::layer_cache::units(&self.rows, self.width(), scope)
    }

    /// Of a scope, all its groups together.
    fn of(&self, scope: &Scope) -> Saliency {
        let totals = column_sums(&self.units(scope), self.width());
        let kind = |kind: usize| {
            (kind < self.kinds)
                .then(|| totals[kind * self.experts..(kind + 1) * self.experts].to_vec())
        };
        Saliency { selections: kind(0).unwrap_or_default(), norms: kind(1), weighted: kind(2) }
    }

    /// REAP and EAN by expert in a scope.
    fn by_expert(&self, scope: &Scope) -> (Vec<Estimate>, Vec<Estimate>) {
        let (experts, resamples) = (self.experts, &scope.resamples);
        let whole = self.of(scope);
        let mut resampled = [(); 2].map(|()| vec![Vec::with_capacity(resamples.len()); experts]);
        if self.kinds > 1 {
            let [of_reap, of_ean] = &mut resampled;
            resamples.each_sum(resamples.len(), &self.units(scope), self.width(), |_, sums| {
                for expert in 0..experts {
                    of_ean[expert].push(sums[experts + expert]);
                    if self.kinds > 2 {
                        of_reap[expert].push(mean(sums[2 * experts + expert], sums[expert]));
                    }
                }
            });
        }
        let [mut of_reap, mut of_ean] = resampled;
        let estimates = |ranking, resampled: &mut [Vec<f64>]| {
            let values = whole.by(ranking).unwrap_or_default();
            let of = |(value, resampled): (f64, &mut Vec<f64>)| {
                (value, resamples.interval(value, resampled, (0.0, f64::MAX)))
            };
            values.into_iter().zip(resampled).map(of).collect()
        };
        (estimates(Ranking::Reap, &mut of_reap), estimates(Ranking::Ean, &mut of_ean))
    }

    /// Traffic and REAP saliency that go when experts go in `order`, in the half that measures.
    fn removed(&self, half: &Scope, order: &[usize]) -> (Vec<Estimate>, Vec<Estimate>) {
        let (experts, resamples) = (self.experts, &half.resamples);
        let measured = self.of(half);
        let all: f64 = measured.selections.iter().sum();
        if all <= 0.0 {
            return Default::default();
        }
        let traffic = removed(&measured.selections, order);
        let saliency = measured.by(Ranking::Reap).map(|reap| removed(&reap, order));
        let mut of_traffic = vec![Vec::with_capacity(resamples.len()); experts];
        let mut of_saliency = of_traffic.clone();
        let mut reap = vec![0.0; experts];
        resamples.each_sum(resamples.len(), &self.units(half), self.width(), |_, sums| {
            let selections = &sums[..experts];
            for (values, share) in of_traffic.iter_mut().zip(removed(selections, order)) {
                values.push(share);
            }
            if saliency.is_some() {
                let weighted = &sums[2 * experts..];
                for ((reap, &sum), &count) in reap.iter_mut().zip(weighted).zip(selections) {
                    *reap = mean(sum, count);
                }
                for (values, share) in of_saliency.iter_mut().zip(removed(&reap, order)) {
                    values.push(share);
                }
            }
        });
        let interval =
            |value: f64, resampled: &mut Vec<f64>| resamples.interval(value, resampled, (0.0, 1.0));
        let traffic = traffic.into_iter().zip(&mut of_traffic).map(|(value, resampled)| {
            (value, with_rare_events(interval(value, resampled), value * all, all))
        });
        let saliency = saliency.into_iter().flatten().zip(&mut of_saliency);
        (
            traffic.collect(),
            saliency.map(|(value, resampled)| (value, interval(value, resampled))).collect(),
        )
    }
}
