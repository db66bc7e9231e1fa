//! Hits of experts that are pinned, whatever their layers.

use super::shared::{global_cache, layer_cache::Policy};
use crate::metric::{Group, Metric, Need};

/// Rows: none x size, in experts of all layers together (L, 2L, ..., E L for L layers), and none x domain x
/// size. Over whole sequences and, where there are generated tokens, over those alone. Interval: bootstrap
/// over sequences.
pub(crate) const HIT_RATE_GLOBAL_STATIC: Metric = Metric {
    name: "hit_rate_global_static",
    title: "Hit rate of a shared cache, static",
    group: Group::Locality,
    unit: "ratio",
    formula: "hit_rate_static of the M experts of all layers most used in the other half of the sequences",
    chance: "M / (all experts)",
    source: "As hit_rate_static; it is also the best split of a static cache over layers",
    needs: &[Need::Ids],
    compute: |study| global_cache::rows(study, &HIT_RATE_GLOBAL_STATIC, Policy::Static),
};
