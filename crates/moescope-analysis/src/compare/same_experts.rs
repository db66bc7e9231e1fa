//! How often two runs choose the same set of experts.

use super::agreement::{SAME, rows};
use super::{ComparisonMetric, Part};
use crate::chance::sets;
use crate::metric::Need;

/// Rows: layer; none (mean over layers); each also x phase and x domain. Interval: bootstrap over sequences,
/// no narrower than rare events allow.
pub(super) const SAME_EXPERTS: ComparisonMetric = ComparisonMetric {
    name: "same_experts",
    title: "Same set of experts",
    unit: "ratio",
    formula: "share of tokens with S_a = S_b, in any order",
    chance: "1 / (E choose k)",
    source: "The complement of the flip rate of whole sets: tokens for which an implementation that is meant to be \
             equal routes alike",
    part: Part::Routing,
    token_wise: true,
    needs: &[Need::Ids],
    of_each: None,
    compute: |pair| rows(pair, &SAME_EXPERTS, SAME, |layer| 1.0 / sets(layer.experts, layer.top_k)),
};
