//! How sure the router is of its choice.

use super::shared::means;
use crate::metric::{Group, Metric, Need};

/// Rows: layer; layer x phase; layer x domain. Interval: bootstrap over sequences.
pub(crate) const ROUTER_ENTROPY: Metric = Metric {
    name: "router_entropy",
    title: "Router entropy",
    group: Group::Structure,
    unit: "nats",
    formula: "mean over tokens of -sum_e r_e ln r_e, r the softmax over all E experts",
    chance: "ln E: the router does not distinguish the experts",
    source: "Shannon 1948; the lower, the surer the router",
    needs: &[Need::Entropy],
    compute: |study| {
        means::means(study, &ROUTER_ENTROPY, |layer| {
            layer.entropy.as_deref().map(|values| (values, (layer.experts as f64).ln()))
        })
    },
};
