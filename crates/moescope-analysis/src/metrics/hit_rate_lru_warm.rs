//! Hits of a cache per layer that the prompt has filled.

use super::shared::layer_cache::{self, Policy};
use crate::metric::{Group, Metric, Need};

/// Rows as `hit_rate_lru`, over generated tokens alone. Interval: bootstrap over sequences.
pub(crate) const HIT_RATE_LRU_WARM: Metric = Metric {
    name: "hit_rate_lru_warm",
    title: "Cache hit rate, LRU warmed by the prompt",
    group: Group::Locality,
    unit: "ratio",
    formula: "hit_rate_lru over the generated tokens, with the cache as the prompt left it",
    chance: "as hit_rate_lru, after as many tokens of prompt",
    source: "What a prompt leaves behind serves the text that follows it",
    needs: &[Need::Ids, Need::Decode],
    compute: |study| layer_cache::rows(study, &HIT_RATE_LRU_WARM, Policy::LruWarm),
};
