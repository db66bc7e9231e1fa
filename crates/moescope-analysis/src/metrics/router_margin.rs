//! How near the choice of experts is to another one.

use super::shared::means;
use crate::metric::{Group, Metric, Need};

/// Rows: layer; layer x phase; layer x domain. Interval: bootstrap over sequences.
pub(crate) const ROUTER_MARGIN: Metric = Metric {
    name: "router_margin",
    title: "Router margin",
    group: Group::Structure,
    unit: "probability",
    formula: "mean over tokens of r_(k) - r_(k+1): how far the last selected expert is ahead of the \
              first one left out",
    chance: "0: the router does not distinguish the experts",
    source: "The change of probabilities that would change the set; compare it with rounding errors",
    needs: &[Need::Margin],
    compute: |study| {
        means::means(study, &ROUTER_MARGIN, |layer| {
            layer.margin.as_deref().map(|values| (values, 0.0))
        })
    },
};
