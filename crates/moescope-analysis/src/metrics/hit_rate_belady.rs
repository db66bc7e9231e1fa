//! The most that a cache per layer can hit.

use super::shared::layer_cache::{self, Policy};
use crate::metric::{Group, Metric, Need};

/// Rows: layer x size (1..E), and none x size: all layers with that many experts each; none x domain x
/// size. Over whole sequences and, where there are generated tokens, over those alone. Interval: bootstrap
/// over sequences.
pub(crate) const HIT_RATE_BELADY: Metric = Metric {
    name: "hit_rate_belady",
    title: "Cache hit rate, bound",
    group: Group::Locality,
    unit: "ratio",
    formula: "as hit_rate_lru, of a cache that keeps the ones needed again soonest and begins with the \
              ones needed first: no cache that loads on demand has more hits, preloaded or not",
    chance: "the same cache under simulated uniform routing: it knows the future there too",
    source: "Belady 1966; one pass over the stack of next uses",
    needs: &[Need::Ids],
    compute: |study| layer_cache::rows(study, &HIT_RATE_BELADY, Policy::Belady),
};
