//! What an expert adds, per token that selects it.

use super::shared::saliency;
use crate::metric::{Group, Metric};

/// Rows: layer x expert. Interval: bootstrap over sequences.
pub(crate) const SALIENCY_REAP: Metric = Metric {
    name: "saliency_reap",
    title: "Saliency (REAP)",
    group: Group::Deployment,
    unit: "norm",
    formula: "mean over tokens that selected e of g_e(x) norm2(f_e(x)), g renormalised over the top-k, f_e(x) \
              the output of e before its weight; 0 for an expert that was never selected",
    chance: "",
    source: "Router-weighted Expert Activation Pruning (Lasby et al. 2025, arXiv 2510.13999)",
    needs: saliency::REAP_NEEDS,
    compute: |study| saliency::expert_rows(study, &SALIENCY_REAP, |layer| &layer.reap),
};
