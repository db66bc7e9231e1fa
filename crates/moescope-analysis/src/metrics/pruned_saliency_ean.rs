//! The saliency of the experts that EAN would prune.

use super::shared::saliency;
use crate::metric::{Group, Metric};
use crate::simulate::saliency::Ranking;

/// Rows: layer x size (n = 1..E). Interval: bootstrap over the sequences of the measuring half, the
/// ranking kept.
pub(crate) const PRUNED_SALIENCY_EAN: Metric = Metric {
    name: "pruned_saliency_ean",
    title: "Saliency removed by pruning, by EAN",
    group: Group::Deployment,
    unit: "ratio",
    formula: "as `pruned_saliency`, of the n experts with the least EAN in the other half",
    chance: "n/E",
    source: "How much of what REAP sees is lost by the ranking that is its baseline",
    needs: saliency::REAP_NEEDS,
    compute: |study| saliency::saliency_rows(study, &PRUNED_SALIENCY_EAN, Ranking::Ean),
};
