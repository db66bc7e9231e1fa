//! The saliency of the experts that REAP would prune.

use super::shared::saliency;
use crate::metric::{Group, Metric};
use crate::simulate::saliency::Ranking;

/// Rows: layer x size (n = 1..E). Interval: bootstrap over the sequences of the measuring half, the
/// ranking kept.
pub(crate) const PRUNED_SALIENCY: Metric = Metric {
    name: "pruned_saliency",
    title: "Saliency removed by pruning, by REAP",
    group: Group::Deployment,
    unit: "ratio",
    formula: "share of the sum of REAP saliencies in one half of the sequences that the n experts with the \
              least of it in the other half have",
    chance: "n/E: experts that are alike share it evenly",
    source: "Against pruned_traffic: what is lost for what is saved",
    needs: saliency::REAP_NEEDS,
    compute: |study| saliency::saliency_rows(study, &PRUNED_SALIENCY, Ranking::Reap),
};
