//! Load of the busiest GPU with hot experts replicated.

use super::shared::placement::{self, Kind};
use crate::metric::{Group, Metric, Need};

/// Rows: layer x size (G = 2, 4, 8, ... GPUs that divide E, two experts on each at least); none x size: the
/// mean over layers. Interval: bootstrap over the sequences that measure, the placement kept.
pub(crate) const GPU_IMBALANCE_EPLB: Metric = Metric {
    name: "gpu_imbalance_eplb",
    title: "GPU imbalance, experts replicated and packed",
    group: Group::Deployment,
    unit: "ratio",
    formula: "as gpu_imbalance_packed, with one redundant expert per GPU",
    chance: "as for `gpu_imbalance_packed`, with the redundant experts",
    source: "DeepSeek's EPLB, global policy (github.com/deepseek-ai/EPLB)",
    needs: &[Need::Ids],
    compute: |study| placement::rows(study, &GPU_IMBALANCE_EPLB, Kind::Replicated),
};
