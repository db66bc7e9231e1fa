//! Placements chosen on one half of a run's sequences and measured on the other.

use std::collections::HashMap;

use super::Placement;
use crate::bootstrap::Resamples;
use crate::chance::UniformCounts;
use crate::counts::column_sums;
use crate::parallel;
use crate::study::Study;

/// How uneven the load of some GPUs is.
#[derive(Clone, Debug, PartialEq)]
pub struct Imbalance {
    /// Model layer; `None` is the mean over layers, as they wait for their busiest GPU one by one.
    pub layer: Option<u16>,
    /// GPUs, G.
    pub gpus: usize,
    /// Load of the busiest GPU over the mean, 1 at best.
    pub value: f64,
    /// 95 % bootstrap interval over the sequences that measure, the placement kept.
    pub interval: Option<(f64, f64)>,
    /// What uniform routing of as many tokens gives, placed the same way.
    pub chance: Option<f64>,
}

/// Uniform runs behind a chance level. The imbalance of one of them is within a few percent of the
/// mean, and the mean of so many within a few thousandths.
const DRAWS: usize = 200;

/// One layer in each plan.
struct Layer {
    number: u16,
    /// By plan.
    placed: Vec<Option<Placed>>,
}

/// One layer in one plan.
struct Placed {
    value: f64,
    resampled: Vec<f64>,
    chance: Option<f64>,
}

/// E, k, and the tokens of the halves that choose and measure.
type Shape = (usize, usize, u64, u64);

/// Places the experts of each layer by their loads in the first half of the sequences, for each
/// number of GPUs, and measures on the second half: layers first, then means over those that were
/// placed. `place` gets the loads `[E]` and a number of GPUs.
pub fn imbalances(
    study: &Study<'_>,
    gpus: &[usize],
    place: impl Fn(&[f64], usize) -> Option<Placement> + Sync,
) -> Vec<Imbalance> {
    let plans: Vec<Plan<()>> = gpus.iter().map(|&gpus| Plan { kind: (), gpus }).collect();
    let found = of_plans(study, &plans, |loads, plan| place(loads, plan.gpus));
    found.into_iter().map(|(_, imbalance)| imbalance).collect()
}

/// A way to place experts, on a number of GPUs.
#[derive(Clone, Copy)]
pub(crate) struct Plan<K> {
    pub(crate) kind: K,
    pub(crate) gpus: usize,
}

/// As [`imbalances`], for plans of several kinds, which share the resampled loads. Each comes with the kind of
/// its plan.
pub(crate) fn of_plans<K: Copy + Sync>(
    study: &Study<'_>,
    plans: &[Plan<K>],
    place: impl Fn(&[f64], &Plan<K>) -> Option<Placement> + Sync,
) -> Vec<(K, Imbalance)> {
    let [chosen_on, measured_on] = study.halves();
    let resamples = study.overall().resamples.with_units(measured_on.units.len());
    let counted = study.counted();
    let shapes: Vec<Shape> = counted
        .iter()
        .map(|(layer, counts)| {
            let [chosen, measured] = [chosen_on, measured_on]
                .map(|scope| counts.tokens(&scope.units, None).iter().sum::<f64>() as u64);
            (layer.experts, layer.top_k, chosen, measured)
        })
        .collect();
    let mut distinct = shapes.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let uniform = parallel::map(&distinct, |&shape| uniform(shape, plans, &place));
    let uniform: HashMap<Shape, Vec<Option<f64>>> = distinct.into_iter().zip(uniform).collect();

    let layers: Vec<_> = counted.into_iter().zip(shapes).collect();
    let layers: Vec<Layer> = parallel::map(&layers, |((layer, counts), shape)| {
        let loads = column_sums(&counts.rows(&chosen_on.units, None), layer.experts);
        let rows = counts.rows(&measured_on.units, None);
        let measured = column_sums(&rows, layer.experts);
        let chances = uniform.get(shape);
        let placements: Vec<Option<Placement>> =
            plans.iter().map(|plan| place(&loads, plan)).collect();
        let mut placed: Vec<Option<Placed>> = placements
            .iter()
            .enumerate()
            .map(|(at, placement)| {
                Some(Placed {
                    value: placement.as_ref()?.imbalance(&measured)?,
                    resampled: Vec::with_capacity(resamples.len()),
                    chance: chances.and_then(|chances| *chances.get(at)?),
                })
            })
            .collect();
        resamples.each_sum(resamples.len(), &rows, layer.experts, |_, drawn| {
            for (placement, placed) in placements.iter().zip(&mut placed) {
                if let (Some(placement), Some(placed)) = (placement, placed) {
                    placed.resampled.push(placement.imbalance(drawn).unwrap_or(f64::NAN));
                }
            }
        });
        Layer { number: layer.layer, placed }
    });
    let mut found = Vec::new();
    let mut means: Vec<Vec<&Placed>> = vec![Vec::new(); plans.len()];
    for layer in &layers {
        for ((plan, mean), placed) in plans.iter().zip(&mut means).zip(&layer.placed) {
            if let Some(placed) = placed {
                let of_layer = imbalance(&resamples, Some(layer.number), plan.gpus, &[placed]);
                found.push((plan.kind, of_layer));
                mean.push(placed);
            }
        }
    }
    for (plan, placed) in plans.iter().zip(&means) {
        if !placed.is_empty() {
            found.push((plan.kind, imbalance(&resamples, None, plan.gpus, placed)));
        }
    }
    found
}

/// The mean over placed layers.
fn imbalance(
    resamples: &Resamples,
    layer: Option<u16>,
    gpus: usize,
    placed: &[&Placed],
) -> Imbalance {
    let count = placed.len() as f64;
    let value = placed.iter().map(|placed| placed.value).sum::<f64>() / count;
    let mut resampled: Vec<f64> = (0..resamples.len())
        .map(|r| placed.iter().map(|placed| placed.resampled[r]).sum::<f64>() / count)
        .collect();
    let chances = placed.iter().map(|placed| placed.chance).sum::<Option<f64>>();
    Imbalance {
        layer,
        gpus,
        value,
        interval: resamples.interval(value, &mut resampled, (1.0, gpus as f64)),
        chance: chances.map(|sum| sum / count),
    }
}

/// The mean imbalance of uniform runs, placed by one draw of counts and measured on another, by plan.
fn uniform<K>(
    (experts, top_k, chosen, measured): Shape,
    plans: &[Plan<K>],
    place: impl Fn(&[f64], &Plan<K>) -> Option<Placement>,
) -> Vec<Option<f64>> {
    let mut sums = vec![Some(0.0); plans.len()];
    let Some(mut uniform) = UniformCounts::new(experts, top_k) else {
        return vec![None; plans.len()];
    };
    let (mut loads, mut drawn) = (vec![0.0; experts], vec![0.0; experts]);
    for _ in 0..DRAWS {
        uniform.draw(chosen, &mut loads);
        uniform.draw(measured, &mut drawn);
        for (sum, plan) in sums.iter_mut().zip(plans) {
            *sum = sum.and_then(|sum| Some(sum + place(&loads, plan)?.imbalance(&drawn)?));
        }
    }
    sums.into_iter().map(|sum| sum.map(|sum| sum / DRAWS as f64)).collect()
}
