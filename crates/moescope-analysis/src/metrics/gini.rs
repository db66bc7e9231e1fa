//! Inequality of the loads of experts.

use super::shared::balance;
use crate::metric::{Group, Metric, Need};

/// Rows: layer; layer x phase; layer x domain. Interval: bootstrap over sequences.
pub(crate) const GINI: Metric = Metric {
    name: "gini",
    title: "Gini coefficient",
    group: Group::Balance,
    unit: "ratio",
    formula: "sum_i sum_j |c_i - c_j| / (2 E² c̄)",
    chance: "its expectation for T tokens, which tends to 0 as T grows",
    source: "Gini 1912; 0 is even use, (E-1)/E is one expert for all tokens",
    needs: &[Need::Ids],
    compute: |study| balance::rows(study, &GINI, |balance| balance.gini, |_| (0.0, 1.0)),
};
