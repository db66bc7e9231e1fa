//! How many of the experts of the next MoE layer those of this one foretell.

use super::shared::next_layer;
use crate::metric::{Group, Metric, Need};

/// Rows: layer, about predicting the next MoE layer from it; layer x phase; layer x domain. Interval:
/// bootstrap over sequences.
pub(crate) const NEXT_LAYER_RECALL: Metric = Metric {
    name: "next_layer_recall",
    title: "Next-layer recall",
    group: Group::Locality,
    unit: "ratio",
    formula: "mean over tokens of |F_t ∩ S_t(l+1)| / k, F_t the k experts j with the largest sum over i in \
              S_t(l) of P(j given i); P counted on one half of the sequences, t from the other",
    chance: "k/E",
    source: "Prediction by transition counts, as prefetchers of MoE experts do, on text they have not seen. \
             At most 2^18 tokens, evenly spread, are looked at per layer",
    needs: &[Need::Ids, Need::Layers, Need::FewExperts],
    compute: |study| {
        next_layer::rows(study, &NEXT_LAYER_RECALL, 0, |to| to.top_k as f64 / to.experts as f64)
    },
};
