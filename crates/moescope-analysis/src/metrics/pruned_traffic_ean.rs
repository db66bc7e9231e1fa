//! The traffic of the experts that EAN would prune.

use super::shared::saliency;
use crate::metric::{Group, Metric};
use crate::simulate::saliency::Ranking;

/// Rows: layer x size (n = 1..E). Interval: bootstrap over the sequences of the measuring half, the
/// ranking kept.
pub(crate) const PRUNED_TRAFFIC_EAN: Metric = Metric {
    name: "pruned_traffic_ean",
    title: "Traffic removed by pruning, by EAN",
    group: Group::Deployment,
    unit: "ratio",
    formula: "as `pruned_traffic`, of the n experts with the least EAN in the other half",
    chance: "n/E",
    source: "As `pruned_traffic`",
    needs: saliency::EAN_NEEDS,
    compute: |study| saliency::traffic_rows(study, &PRUNED_TRAFFIC_EAN, Ranking::Ean),
};
