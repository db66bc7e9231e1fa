//! The traffic of the experts that frequency would prune.

use super::shared::saliency;
use crate::metric::{Group, Metric, Need};
use crate::simulate::saliency::Ranking;

/// Rows: layer x size (n = 1..E). Interval: bootstrap over the sequences of the measuring half, the
/// ranking kept.
pub(crate) const PRUNED_TRAFFIC_FREQUENCY: Metric = Metric {
    name: "pruned_traffic_frequency",
    title: "Traffic removed by pruning, by frequency",
    group: Group::Deployment,
    unit: "ratio",
    formula: "as `pruned_traffic`, of the n experts with the least selections in the other half",
    chance: "n/E",
    source: "As `pruned_traffic`; 1 - `lorenz` of the other E - n experts",
    needs: &[Need::Ids],
    compute: |study| saliency::traffic_rows(study, &PRUNED_TRAFFIC_FREQUENCY, Ranking::Frequency),
};
