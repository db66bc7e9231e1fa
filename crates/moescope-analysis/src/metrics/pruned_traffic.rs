//! The traffic of the experts that REAP would prune.

use super::shared::saliency;
use crate::metric::{Group, Metric};
use crate::simulate::saliency::Ranking;

/// Rows: layer x size (n = 1..E). Interval: bootstrap over the sequences of the measuring half, the
/// ranking kept.
pub(crate) const PRUNED_TRAFFIC: Metric = Metric {
    name: "pruned_traffic",
    title: "Traffic removed by pruning, by REAP",
    group: Group::Deployment,
    unit: "ratio",
    formula: "share of the selections in one half of the sequences that fall on the n experts with the least \
              REAP saliency in the other half",
    chance: "n/E",
    source: "What the remaining experts would have to take over. Ranked and measured on different text, as \
             everything that is chosen",
    needs: saliency::REAP_NEEDS,
    compute: |study| saliency::traffic_rows(study, &PRUNED_TRAFFIC, Ranking::Reap),
};
