//! How near the use of experts is to an even one.

use super::shared::balance;
use crate::metric::{Group, Metric, Need};

/// Rows: layer; layer x phase; layer x domain. Interval: bootstrap over sequences.
pub(crate) const NORMALISED_ENTROPY: Metric = Metric {
    name: "normalised_entropy",
    title: "Normalised entropy of use",
    group: Group::Balance,
    unit: "ratio",
    formula: "-sum_e p_e ln p_e / ln E, p_e = c_e / sum c; 1 for E = 1",
    chance: "its expectation for T tokens, which tends to 1 as T grows",
    source: "Shannon 1948, over the entropy of an even distribution",
    needs: &[Need::Ids],
    compute: |study| {
        balance::rows(
            study,
            &NORMALISED_ENTROPY,
            |balance| balance.normalised_entropy,
            |_| (0.0, 1.0),
        )
    },
};
