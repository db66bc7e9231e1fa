//! Whether experts belong to tokens.

use super::shared::vocabulary;
use crate::metric::{Group, Metric, Need};
use crate::occurrences::Which;

/// Rows: layer; layer x phase; layer x domain. Interval: bootstrap over sequences, first order, for the ids
/// that occurred.
pub(crate) const VOCABULARY_SPECIALISATION: Metric = Metric {
    name: "vocabulary_specialisation",
    title: "Vocabulary specialisation, input token",
    group: Group::Structure,
    unit: "ratio",
    formula: "mean over token ids x with N(x) >= 10 of max_e N(x,e) / N(x), N(x,e) the occurrences of x that \
              selected e",
    chance: "mean over the same ids of the expected largest of E counts, each binomial (N(x), k/E)",
    source: "Muennighoff et al. 2024, OLMoE, section 5 (arXiv 2409.02060); the chance level is ours, since a \
             maximum over experts is above k/E whatever the router does",
    needs: &[Need::Ids, Need::TokenIds],
    compute: |study| vocabulary::rows(study, &VOCABULARY_SPECIALISATION, Which::Input),
};
