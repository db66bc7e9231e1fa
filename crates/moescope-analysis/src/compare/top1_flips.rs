//! How often two runs differ in the first expert of a token.

use super::agreement::{FLIPPED, rows};
use super::{ComparisonMetric, Part};
use crate::metric::Need;

/// Rows: layer; none (mean over layers); each also x phase and x domain. Interval: bootstrap over sequences,
/// no narrower than rare events allow.
pub(super) const TOP1_FLIPS: ComparisonMetric = ComparisonMetric {
    name: "top1_flips",
    title: "Flips of the first choice",
    unit: "ratio",
    formula: "share of tokens whose first choice differs (the expert of rank 0)",
    chance: "1 - 1/E",
    source: "Flip rate: the share of decisions that a change of weights, type or device turns over; of whole sets \
             it is 1 - `same_experts`",
    part: Part::Routing,
    token_wise: true,
    needs: &[Need::Ids],
    of_each: None,
    compute: |pair| rows(pair, &TOP1_FLIPS, FLIPPED, |layer| 1.0 - 1.0 / layer.experts as f64),
};
