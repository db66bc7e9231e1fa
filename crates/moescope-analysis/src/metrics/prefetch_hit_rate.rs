//! Next-layer prefetch: what is there in time.

use super::shared::prefetch;
use crate::metric::{Group, Metric, Need};

/// Rows: layer x size (p = 1..E), about the experts of that layer, foretold from the MoE layer before
/// it; none x size over all of them, and none x domain x size. Interval: bootstrap over sequences.
pub(crate) const PREFETCH_HIT_RATE: Metric = Metric {
    name: "prefetch_hit_rate",
    title: "Next-layer prefetch, hit rate",
    group: Group::Locality,
    unit: "ratio",
    formula: "share of S_t(l) among the p experts f with the largest sum over e in S_t(l-1) of P(f given \
              e), P counted on one half of the sequences, t from the other",
    chance: "p/E",
    source: "Prefetch by transition counts while the layer before computes. At most 2^18 tokens, evenly \
             spread, are looked at per layer",
    needs: &[Need::Ids, Need::Layers, Need::FewExperts],
    compute: |study| prefetch::rows(study, &PREFETCH_HIT_RATE, false),
};
