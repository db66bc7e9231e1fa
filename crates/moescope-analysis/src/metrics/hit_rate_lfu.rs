//! Hits of a cache per layer that keeps the experts used most often.

use super::shared::layer_cache::{self, Policy};
use crate::metric::{Group, Metric, Need};

/// Rows: layer x size (1..E), and none x size: all layers with that many experts each; none x domain x
/// size. Over whole sequences and, where there are generated tokens, over those alone. Interval: bootstrap
/// over sequences.
pub(crate) const HIT_RATE_LFU: Metric = Metric {
    name: "hit_rate_lfu",
    title: "Cache hit rate, LFU",
    group: Group::Locality,
    unit: "ratio",
    formula: "as hit_rate_lru, of a cache that keeps the ones used most often since it was empty; of \
              equal ones the more recent",
    chance: "as hit_rate_lru",
    source: "LFU with counts of all experts, a stack algorithm: Mattson et al. 1970",
    needs: &[Need::Ids],
    compute: |study| layer_cache::rows(study, &HIT_RATE_LFU, Policy::Lfu),
};
