//! Load of the busiest GPU under expert parallelism, before and after balancing.

use crate::metric::{Metric, Need};
use crate::row::{Index, MetricRow};
use crate::simulate::placement::{Cluster, Placement, imbalances};
use crate::study::Study;

/// Rows of each: layer x size (G = 2, 4, 8, ... GPUs that divide E, two experts on each at least);
/// none x size: the mean over layers. Interval: bootstrap over the sequences that measure, the
/// placement kept.
pub(crate) const GPU_IMBALANCE: Metric = Metric {
    name: "gpu_imbalance",
    title: "GPU imbalance, experts in order",
    unit: "ratio",
    formula: "load of the busiest of G GPUs / mean load, E/G experts on each in order; on the half of the \
              sequences that measures",
    chance: "the mean over 200 simulated uniform runs of as many tokens, which tends to 1 as T grows",
    source: "A layer is done when its busiest GPU is",
    needs: &[Need::Ids],
    compute: |study| {
        rows(study, &GPU_IMBALANCE, |loads, gpus| Some(Placement::contiguous(loads.len(), gpus)))
    },
};

pub(crate) const GPU_IMBALANCE_PACKED: Metric = Metric {
    name: "gpu_imbalance_packed",
    title: "GPU imbalance, experts packed",
    unit: "ratio",
    formula: "as gpu_imbalance, with experts packed by their load in the other half of the sequences",
    chance: "as for `gpu_imbalance`, packed by one uniform run and measured on another",
    source: "Balanced packing of DeepSeek's EPLB, without redundant experts",
    needs: &[Need::Ids],
    compute: |study| rows(study, &GPU_IMBALANCE_PACKED, |loads, gpus| balanced(loads, gpus, 0)),
};

pub(crate) const GPU_IMBALANCE_EPLB: Metric = Metric {
    name: "gpu_imbalance_eplb",
    title: "GPU imbalance, experts replicated and packed",
    unit: "ratio",
    formula: "as gpu_imbalance_packed, with one redundant expert per GPU",
    chance: "as for `gpu_imbalance_packed`, with the redundant experts",
    source: "DeepSeek's EPLB, global policy (github.com/deepseek-ai/EPLB)",
    needs: &[Need::Ids],
    compute: |study| rows(study, &GPU_IMBALANCE_EPLB, |loads, gpus| balanced(loads, gpus, gpus)),
};

fn balanced(loads: &[f64], gpus: usize, redundant: usize) -> Option<Placement> {
    let cluster = Cluster { gpus, redundant, groups: 1, nodes: 1 };
    Placement::balanced(loads, &cluster).ok()
}

fn rows(
    study: &Study<'_>,
    metric: &Metric,
    place: impl Fn(&[f64], usize) -> Option<Placement> + Sync,
) -> Vec<MetricRow> {
    let largest = study.data.layers.iter().map(|layer| layer.experts).max().unwrap_or(0);
    let gpus = std::iter::successors(Some(2), |gpus| Some(gpus * 2));
    let gpus: Vec<usize> = gpus.take_while(|gpus| gpus * 2 <= largest).collect();
    let fits = |loads: &[f64], gpus: usize| {
        (loads.len().is_multiple_of(gpus) && gpus * 2 <= loads.len()).then(|| place(loads, gpus))?
    };
    let row = study.row(metric.name, metric.unit, study.overall());
    imbalances(study, &gpus, fits)
        .into_iter()
        .map(|found| MetricRow {
            layer: found.layer,
            index: Some(Index::Size(found.gpus as u32)),
            value: found.value,
            interval: found.interval,
            chance: found.chance,
            ..row.clone()
        })
        .collect()
}
