//! Placements chosen on one half of a run's sequences and measured on the other.

use super::Placement;
use crate::bootstrap::Resamples;
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
}

/// Places the experts of each layer by their loads in the first half of the sequences, for each
/// number of GPUs, and measures on the second half: layers first, then means over those that were
/// placed. `place` gets the loads `[E]` and a number of GPUs.
pub fn imbalances(
    study: &Study<'_>,
    gpus: &[usize],
    place: impl Fn(&[f64], usize) -> Option<Placement> + Sync,
) -> Vec<Imbalance> {
    let half = |second: bool| -> Vec<u32> {
        (0..study.groups.len() as u32)
            .filter(|&group| study.groups.is_second_half(group as usize) == second)
            .collect()
    };
    let (chosen_on, measured_on) = (half(false), half(true));
    let resamples = study.overall().resamples.with_units(measured_on.len());
    // Of each layer: the imbalance and its resamples by number of GPUs.
    let layers = parallel::map(&study.counted(), |(layer, counts)| {
        let loads = column_sums(&counts.rows(&chosen_on, None), layer.experts);
        let rows = counts.rows(&measured_on, None);
        let measured = column_sums(&rows, layer.experts);
        let of_gpus = |&gpus: &usize| {
            let placement = place(&loads, gpus)?;
            let value = placement.imbalance(&measured)?;
            let mut drawn = vec![0.0; layer.experts];
            let resampled = (0..resamples.len()).map(|r| {
                resamples.sums(r, &rows, &mut drawn);
                placement.imbalance(&drawn).unwrap_or(f64::NAN)
            });
            Some((value, resampled.collect::<Vec<f64>>()))
        };
        gpus.iter().map(of_gpus).collect::<Vec<_>>()
    });
    let mut found = Vec::new();
    let mut means = vec![(0.0, 0.0, vec![0.0; resamples.len()]); gpus.len()];
    for (layer, by_gpus) in study.data.layers.iter().zip(layers) {
        for ((&gpus, mean), placed) in gpus.iter().zip(&mut means).zip(by_gpus) {
            let Some((value, mut resampled)) = placed else {
                continue;
            };
            mean.0 += 1.0;
            mean.1 += value;
            mean.2.iter_mut().zip(&resampled).for_each(|(sum, more)| *sum += more);
            found.push(imbalance(&resamples, Some(layer.layer), gpus, value, &mut resampled));
        }
    }
    for (&gpus, (layers, sum, mut sums)) in gpus.iter().zip(means) {
        if layers > 0.0 {
            sums.iter_mut().for_each(|sum| *sum /= layers);
            found.push(imbalance(&resamples, None, gpus, sum / layers, &mut sums));
        }
    }
    found
}

fn imbalance(
    resamples: &Resamples,
    layer: Option<u16>,
    gpus: usize,
    value: f64,
    resampled: &mut Vec<f64>,
) -> Imbalance {
    let interval = resamples.interval(value, resampled, (1.0, gpus as f64));
    Imbalance { layer, gpus, value, interval }
}
