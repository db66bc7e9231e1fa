//! Hits of a cache of all layers that the prompt has filled.

use super::shared::{global_cache, layer_cache::Policy};
use crate::metric::{Group, Metric, Need};

/// Rows as `hit_rate_global_lru`, over generated tokens alone. Interval: bootstrap over sequences.
pub(crate) const HIT_RATE_GLOBAL_LRU_WARM: Metric = Metric {
    name: "hit_rate_global_lru_warm",
    title: "Hit rate of a shared cache, LRU warmed by the prompt",
    group: Group::Locality,
    unit: "ratio",
    formula: "hit_rate_lru_warm of one cache of M experts over all layers",
    chance: "as hit_rate_global_lru, after as many tokens of prompt",
    source: "As hit_rate_lru_warm",
    needs: &[Need::Ids, Need::Decode],
    compute: |study| global_cache::rows(study, &HIT_RATE_GLOBAL_LRU_WARM, Policy::LruWarm),
};
