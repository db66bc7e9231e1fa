//! Hits of a cache of all layers that keeps the experts used most often.

use super::shared::{global_cache, layer_cache::Policy};
use crate::metric::{Group, Metric, Need};

/// Rows: none x size, in experts of all layers together (L, 2L, ..., E L for L layers), and none x domain x
/// size. Over whole sequences and, where there are generated tokens, over those alone. Interval: bootstrap
/// over sequences.
pub(crate) const HIT_RATE_GLOBAL_LFU: Metric = Metric {
    name: "hit_rate_global_lfu",
    title: "Hit rate of a shared cache, LFU",
    group: Group::Locality,
    unit: "ratio",
    formula: "hit_rate_lfu of one cache of M experts over all layers",
    chance: "as hit_rate_global_lru",
    source: "As hit_rate_lfu",
    needs: &[Need::Ids],
    compute: |study| global_cache::rows(study, &HIT_RATE_GLOBAL_LFU, Policy::Lfu),
};
