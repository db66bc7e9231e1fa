//! Load of the busiest GPU under expert parallelism, before and after balancing.

use crate::counts::{LayerCounts, column_sums};
use crate::data::LayerData;
use crate::metric::{Metric, Need};
use crate::parallel;
use crate::row::{Index, MetricRow};
use crate::simulate::placement::{Cluster, Placement};
use crate::study::{Scope, Study};

/// Rows of each: layer x size (G = 2, 4, 8, ... GPUs that divide E, two experts on each at least);
/// none x size: the mean over layers. Interval: bootstrap over the sequences that measure, the
/// placement kept. Uniform routing tends to 1 as T grows.
pub(crate) const GPU_IMBALANCE: Metric = Metric {
    name: "gpu_imbalance",
    title: "GPU imbalance, experts in order",
    unit: "ratio",
    formula: "load of the busiest of G GPUs / mean load, E/G experts on each in order; on the half of the \
              sequences that measures",
    chance: "",
    source: "A layer is done when its busiest GPU is",
    needs: &[Need::Ids],
    compute: |study| {
        rows(study, &GPU_IMBALANCE, |_, experts, gpus| Some(Placement::contiguous(experts, gpus)))
    },
};

pub(crate) const GPU_IMBALANCE_PACKED: Metric = Metric {
    name: "gpu_imbalance_packed",
    title: "GPU imbalance, experts packed",
    unit: "ratio",
    formula: "as gpu_imbalance, with experts packed by their load in the other half of the sequences",
    chance: "",
    source: "Balanced packing of DeepSeek's EPLB, without redundant experts",
    needs: &[Need::Ids],
    compute: |study| rows(study, &GPU_IMBALANCE_PACKED, |loads, _, gpus| balanced(loads, gpus, 0)),
};

pub(crate) const GPU_IMBALANCE_EPLB: Metric = Metric {
    name: "gpu_imbalance_eplb",
    title: "GPU imbalance, experts replicated and packed",
    unit: "ratio",
    formula: "as gpu_imbalance_packed, with one redundant expert per GPU",
    chance: "",
    source: "DeepSeek's EPLB, global policy (github.com/deepseek-ai/EPLB)",
    needs: &[Need::Ids],
    compute: |study| rows(study, &GPU_IMBALANCE_EPLB, |loads, _, gpus| balanced(loads, gpus, gpus)),
};

fn balanced(loads: &[f64], gpus: usize, redundant: usize) -> Option<Placement> {
    let cluster = Cluster { gpus, redundant, groups: 1, nodes: 1 };
    Placement::balanced(loads, &cluster).ok()
}

/// A placement from the loads of one half of the sequences, `[E]`, for E experts on G GPUs.
type Place = fn(loads: &[f64], experts: usize, gpus: usize) -> Option<Placement>;

fn rows(study: &Study<'_>, metric: &Metric, place: Place) -> Vec<MetricRow> {
    let groups = 0..study.groups.len() as u32;
    let half = |second| -> Vec<u32> {
        groups
            .clone()
            .filter(|&group| study.groups.is_second_half(group as usize) == second)
            .collect()
    };
    let scope = Scope {
        resamples: study.overall().resamples.with_units(half(true).len()).into(),
        units: half(true),
        ..study.overall().clone()
    };
    let chosen_on = half(false);
    // By layer and number of GPUs: the imbalance and its resamples.
    let of_layer = |(layer, counts): &(&LayerData, &LayerCounts)| {
        let loads = column_sums(&counts.rows(&chosen_on, None), layer.experts);
        let measured = counts.rows(&scope.units, None);
        let sizes = std::iter::successors(Some(2), |gpus| Some(gpus * 2));
        let sizes = sizes.take_while(|gpus| gpus * 2 <= layer.experts);
        sizes
            .filter(|gpus| layer.experts.is_multiple_of(*gpus))
            .filter_map(|gpus| {
                let placement = place(&loads, layer.experts, gpus)?;
                let imbalance = placement.imbalance(&column_sums(&measured, layer.experts))?;
                let mut drawn = vec![0.0; layer.experts];
                let resampled = (0..scope.resamples.len()).map(|r| {
                    scope.resamples.sums(r, &measured, &mut drawn);
                    placement.imbalance(&drawn).unwrap_or(f64::NAN)
                });
                Some((gpus, imbalance, resampled.collect::<Vec<f64>>()))
            })
            .collect::<Vec<_>>()
    };
    let layers = parallel::map(&study.counted(), of_layer);
    let row = study.row(metric.name, metric.unit, &scope);
    let to_row = |layer, gpus: usize, value, mut resampled: Vec<f64>| MetricRow {
        layer,
        index: Some(Index::Size(gpus as u32)),
        value,
        interval: scope.resamples.interval(value, &mut resampled, (1.0, gpus as f64)),
        ..row.clone()
    };
    let mut rows = Vec::new();
    let mut means: Vec<(usize, f64, Vec<f64>)> = Vec::new();
    for (layer, sizes) in study.data.layers.iter().zip(layers) {
        for (gpus, value, resampled) in sizes {
            match means.iter_mut().find(|mean| mean.0 == gpus) {
                None => means.push((gpus, value, resampled.clone())),
                Some((_, sum, sums)) => {
                    *sum += value;
                    sums.iter_mut().zip(&resampled).for_each(|(sum, more)| *sum += more);
                }
            }
            rows.push(to_row(Some(layer.layer), gpus, value, resampled));
        }
    }
    for (gpus, sum, mut resampled) in means {
        let same = |row: &&MetricRow| row.index == Some(Index::Size(gpus as u32));
        let layers = rows.iter().filter(same).count() as f64;
        resampled.iter_mut().for_each(|value| *value /= layers);
        rows.push(to_row(None, gpus, sum / layers, resampled));
    }
    rows
}
