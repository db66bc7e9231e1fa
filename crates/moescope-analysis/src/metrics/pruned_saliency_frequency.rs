//! The saliency of the experts that frequency would prune.

use super::shared::saliency;
use crate::metric::{Group, Metric};
use crate::simulate::saliency::Ranking;

/// Rows: layer x size (n = 1..E). Interval: bootstrap over the sequences of the measuring half, the
/// ranking kept.
pub(crate) const PRUNED_SALIENCY_FREQUENCY: Metric = Metric {
    name: "pruned_saliency_frequency",
    title: "Saliency removed by pruning, by frequency",
    group: Group::Deployment,
    unit: "ratio",
    formula: "as `pruned_saliency`, of the n experts with the least selections in the other half",
    chance: "n/E",
    source: "How much of what REAP sees is lost by the ranking that takes ids alone",
    needs: saliency::REAP_NEEDS,
    compute: |study| saliency::saliency_rows(study, &PRUNED_SALIENCY_FREQUENCY, Ranking::Frequency),
};
