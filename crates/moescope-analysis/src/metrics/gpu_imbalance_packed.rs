//! Load of the busiest GPU with experts packed by load.

use super::shared::placement::{self, Kind};
use crate::metric::{Group, Metric, Need};

/// Rows: layer x size (G = 2, 4, 8, ... GPUs that divide E, two experts on each at least); none x size: the
/// mean over layers. Interval: bootstrap over the sequences that measure, the placement kept.
pub(crate) const GPU_IMBALANCE_PACKED: Metric = Metric {
    name: "gpu_imbalance_packed",
    title: "GPU imbalance, experts packed",
    group: Group::Deployment,
    unit: "ratio",
    formula: "as gpu_imbalance, with experts packed by their load in the other half of the sequences",
    chance: "as for `gpu_imbalance`, packed by one uniform run and measured on another",
    source: "Balanced packing of DeepSeek's EPLB, without redundant experts",
    needs: &[Need::Ids],
    compute: |study| placement::rows(study, &GPU_IMBALANCE_PACKED, Kind::Packed),
};
