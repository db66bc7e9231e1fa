//! The most that a cache of all layers can hit.

use super::shared::{global_cache, layer_cache::Policy};
use crate::metric::{Group, Metric, Need};

/// Rows: none x size, in experts of all layers together (L, 2L, ..., E L for L layers), and none x domain x
/// size. Over whole sequences and, where there are generated tokens, over those alone. Interval: bootstrap
/// over sequences.
pub(crate) const HIT_RATE_GLOBAL_BELADY: Metric = Metric {
    name: "hit_rate_global_belady",
    title: "Hit rate of a shared cache, bound",
    group: Group::Locality,
    unit: "ratio",
    formula: "hit_rate_belady of one cache of M experts over all layers",
    chance: "the same cache under simulated uniform routing",
    source: "As hit_rate_belady",
    needs: &[Need::Ids],
    compute: |study| global_cache::rows(study, &HIT_RATE_GLOBAL_BELADY, Policy::Belady),
};
