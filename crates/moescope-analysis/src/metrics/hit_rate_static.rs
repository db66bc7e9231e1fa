//! Hits of experts that are pinned in each layer.

use super::shared::layer_cache::{self, Policy};
use crate::metric::{Group, Metric, Need};

/// Rows: layer x size (1..E), and none x size: all layers with that many experts each; none x domain x
/// size. Over whole sequences and, where there are generated tokens, over those alone. Interval: bootstrap
/// over sequences.
pub(crate) const HIT_RATE_STATIC: Metric = Metric {
    name: "hit_rate_static",
    title: "Cache hit rate, static",
    group: Group::Locality,
    unit: "ratio",
    formula: "selections of the m experts most used in the other half of the sequences / selections",
    chance: "m/E",
    source: "Hot experts pinned before anything runs. Chosen and measured in both directions, so that no \
             sequence is measured with a choice it had a part in",
    needs: &[Need::Ids],
    compute: |study| layer_cache::rows(study, &HIT_RATE_STATIC, Policy::Static),
};
