//! How many of a token's experts two runs share.

use super::agreement::{OVERLAP, rows};
use super::{ComparisonMetric, Part};
use crate::metric::Need;

/// Rows: layer; none (mean over layers); each also x phase and x domain. Interval: bootstrap over sequences,
/// no narrower than rare events allow.
pub(super) const ROUTING_OVERLAP: ComparisonMetric = ComparisonMetric {
    name: "routing_overlap",
    title: "Routing overlap",
    unit: "ratio",
    formula: "mean over tokens of |S_a ∩ S_b| / k",
    chance: "k/E",
    source: "Muennighoff et al. 2024, OLMoE (arXiv 2409.02060), who call it router saturation when a and b are \
             two checkpoints",
    part: Part::Routing,
    token_wise: true,
    needs: &[Need::Ids],
    of_each: None,
    compute: |pair| {
        rows(pair, &ROUTING_OVERLAP, OVERLAP, |layer| layer.top_k as f64 / layer.experts as f64)
    },
};
