//! What an expert adds in all.

use super::shared::saliency;
use crate::metric::{Group, Metric};

/// Rows: layer x expert. Interval: bootstrap over sequences.
pub(crate) const SALIENCY_EAN: Metric = Metric {
    name: "saliency_ean",
    title: "Saliency (EAN)",
    group: Group::Deployment,
    unit: "norm",
    formula: "sum over tokens that selected e of norm2(f_e(x))",
    chance: "",
    source: "Expert activation norm, a baseline of REAP (arXiv 2510.13999); frequency, the other one, is \
             `utilisation`",
    needs: saliency::EAN_NEEDS,
    compute: |study| saliency::expert_rows(study, &SALIENCY_EAN, |layer| &layer.ean),
};
