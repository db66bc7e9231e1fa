//! Hits of a cache of all layers that keeps the experts used last.

use super::shared::{global_cache, layer_cache::Policy};
use crate::metric::{Group, Metric, Need};

/// Rows: none x size, in experts of all layers together (L, 2L, ..., E L for L layers), and none x domain x
/// size. Over whole sequences and, where there are generated tokens, over those alone. Interval: bootstrap
/// over sequences.
pub(crate) const HIT_RATE_GLOBAL_LRU: Metric = Metric {
    name: "hit_rate_global_lru",
    title: "Hit rate of a shared cache, LRU",
    group: Group::Locality,
    unit: "ratio",
    formula: "hit_rate_lru of one cache of M experts over all layers: token by token, layer by layer",
    chance: "the same cache under simulated uniform routing: below M / (all experts) where it is small, since \
             the layers take turns",
    source: "As hit_rate_lru; layers that need more room take it",
    needs: &[Need::Ids],
    compute: |study| global_cache::rows(study, &HIT_RATE_GLOBAL_LRU, Policy::Lru),
};
