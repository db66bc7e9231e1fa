//! Whether experts belong to the token that comes next.

use super::shared::vocabulary;
use crate::metric::{Group, Metric, Need};
use crate::occurrences::Which;

/// Rows as `vocabulary_specialisation`. Interval: bootstrap over sequences, first order.
pub(crate) const NEXT_TOKEN_SPECIALISATION: Metric = Metric {
    name: "next_token_specialisation",
    title: "Vocabulary specialisation, next token",
    group: Group::Structure,
    unit: "ratio",
    formula: "as `vocabulary_specialisation`, x the token that follows in the sequence",
    chance: "as for `vocabulary_specialisation`",
    source: "As `vocabulary_specialisation`; deep layers follow what comes more than what is there",
    needs: &[Need::Ids, Need::TokenIds],
    compute: |study| vocabulary::rows(study, &NEXT_TOKEN_SPECIALISATION, Which::Next),
};
