//! How often the experts of the next MoE layer are foretold in full.

use super::shared::next_layer;
use crate::chance::sets;
use crate::metric::{Group, Metric, Need};

/// Rows as `next_layer_recall`. Interval: bootstrap over sequences.
pub(crate) const NEXT_LAYER_EXACT: Metric = Metric {
    name: "next_layer_exact",
    title: "Next layer predicted in full",
    group: Group::Locality,
    unit: "ratio",
    formula: "share of tokens with F_t = S_t(l+1), F_t as in `next_layer_recall`",
    chance: "1 / (number of sets of k out of E)",
    source: "A prefetch that needs nothing more",
    needs: &[Need::Ids, Need::Layers, Need::FewExperts],
    compute: |study| {
        next_layer::rows(study, &NEXT_LAYER_EXACT, 1, |to| 1.0 / sets(to.experts, to.top_k))
    },
};
