//! The load of the busiest expert.

use super::shared::balance;
use crate::metric::{Group, Metric, Need};

/// Rows: layer; layer x phase; layer x domain. Interval: bootstrap over sequences.
pub(crate) const IMBALANCE: Metric = Metric {
    name: "imbalance",
    title: "Load imbalance",
    group: Group::Balance,
    unit: "ratio",
    formula: "max_e c_e / c̄",
    chance: "its expectation for T tokens, which tends to 1 as T grows",
    source: "Load of the most loaded expert over the mean load; it bounds the speed of \
             expert-parallel inference",
    needs: &[Need::Ids],
    compute: |study| {
        balance::rows(study, &IMBALANCE, |balance| balance.imbalance, |_| (1.0, f64::MAX))
    },
};
