//! Load of the busiest GPU with experts in order.

use super::shared::placement::{self, Kind};
use crate::metric::{Group, Metric, Need};

/// Rows: layer x size (G = 2, 4, 8, ... GPUs that divide E, two experts on each at least); none x size: the
/// mean over layers. Interval: bootstrap over the sequences that measure, the placement kept.
pub(crate) const GPU_IMBALANCE: Metric = Metric {
    name: "gpu_imbalance",
    title: "GPU imbalance, experts in order",
    group: Group::Deployment,
    unit: "ratio",
    formula: "load of the busiest of G GPUs / mean load, E/G experts on each in order; on the half of the \
              sequences that measures",
    chance: "the mean over 200 simulated uniform runs of as many tokens, which tends to 1 as T grows",
    source: "A layer is done when its busiest GPU is",
    needs: &[Need::Ids],
    compute: |study| placement::rows(study, &GPU_IMBALANCE, Kind::InOrder),
};
