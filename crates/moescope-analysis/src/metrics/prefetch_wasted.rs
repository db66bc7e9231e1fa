//! Next-layer prefetch: what is brought for nothing.

use super::shared::prefetch;
use crate::metric::{Group, Metric, Need};

/// Rows as `prefetch_hit_rate`. Interval: bootstrap over sequences.
pub(crate) const PREFETCH_WASTED: Metric = Metric {
    name: "prefetch_wasted",
    title: "Next-layer prefetch, wasted transfers",
    group: Group::Locality,
    unit: "ratio",
    formula: "share of the p experts brought that the token does not select: 1 - hits / p, without a cache",
    chance: "1 - k/E",
    source: "What a prefetch costs the link",
    needs: &[Need::Ids, Need::Layers, Need::FewExperts],
    compute: |study| prefetch::rows(study, &PREFETCH_WASTED, true),
};
