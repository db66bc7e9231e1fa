//! Hits of a cache per layer that keeps the experts used last.

use super::shared::layer_cache::{self, Policy};
use crate::metric::{Group, Metric, Need};

/// Rows: layer x size (1..E), and none x size: all layers with that many experts each; none x domain x
/// size. Over whole sequences and, where there are generated tokens, over those alone. Interval: bootstrap
/// over sequences.
pub(crate) const HIT_RATE_LRU: Metric = Metric {
    name: "hit_rate_lru",
    title: "Cache hit rate, LRU",
    group: Group::Locality,
    unit: "ratio",
    formula: "hits / lookups of a cache of m experts per layer that keeps the ones used last; the k of a \
              token are looked up before any is inserted; empty at the start of each sequence (by \
              phase: of the phase)",
    chance: "mean of min(m, D_t) / E, D_t the distinct experts of t random tokens: m/E but for the start",
    source: "All sizes from one pass over stack distances: Mattson et al. 1970",
    needs: &[Need::Ids],
    compute: |study| layer_cache::rows(study, &HIT_RATE_LRU, Policy::Lru),
};
