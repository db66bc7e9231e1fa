//! Loads of GPUs under expert parallelism, for every way to place experts.

use crate::metric::Metric;
use crate::row::{Index, MetricRow};
use crate::simulate::placement::{Cluster, Imbalance, Placement, Plan, of_plans};
use crate::study::Study;

/// How experts are placed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In order, without looking at loads.
    InOrder,
    /// Packed by load.
    Packed,
    /// Packed by load, with one redundant expert per GPU.
    Replicated,
}

/// The imbalance of each kind, on 2, 4, 8, ... GPUs.
pub(crate) struct Placements(Vec<(Kind, Imbalance)>);

impl Placements {
    pub(crate) fn new(study: &Study<'_>) -> Self {
        let largest = study.data.layers.iter().map(|layer| layer.experts).max().unwrap_or(0);
        let gpus = std::iter::successors(Some(2), |gpus| Some(gpus * 2));
        let gpus: Vec<usize> = gpus.take_while(|gpus| gpus * 2 <= largest).collect();
        let of_kind = |kind| gpus.iter().map(move |&gpus| Plan { kind, gpus });
        let plans: Vec<Plan<Kind>> =
            [Kind::InOrder, Kind::Packed, Kind::Replicated].into_iter().flat_map(of_kind).collect();
        Self(of_plans(study, &plans, place))
    }
}

/// `None` where the experts of the layer cannot be spread evenly, two on each GPU at least.
fn place(loads: &[f64], plan: &Plan<Kind>) -> Option<Placement> {
    let (experts, gpus) = (loads.len(), plan.gpus);
    if !experts.is_multiple_of(gpus) || gpus * 2 > experts {
        return None;
    }
    let balanced = |redundant| {
        Placement::balanced(loads, &Cluster { gpus, redundant, groups: 1, nodes: 1 }).ok()
    };
    match plan.kind {
        Kind::InOrder => Some(Placement::contiguous(experts, gpus)),
        Kind::Packed => balanced(0),
        Kind::Replicated => balanced(gpus),
    }
}

/// Rows of one kind.
pub(crate) fn rows(study: &Study<'_>, metric: &Metric, kind: Kind) -> Vec<MetricRow> {
    let row = study.row(metric.name, metric.unit, study.overall());
    let of_kind = study.placements().0.iter().filter(|(found, _)| *found == kind);
    of_kind
        .map(|(_, found)| MetricRow {
            layer: found.layer,
            index: Some(Index::Size(found.gpus as u32)),
            value: found.value,
            interval: found.interval,
            chance: found.chance,
            ..row.clone()
        })
        .collect()
}
