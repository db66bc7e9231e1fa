//! How far the busiest expert is above an even share.

use super::shared::balance;
use crate::metric::{Group, Metric, Need};

/// Rows: layer; layer x phase; layer x domain. Interval: bootstrap over sequences.
pub(crate) const MAX_VIO: Metric = Metric {
    name: "max_vio",
    title: "MaxVio",
    group: Group::Balance,
    unit: "ratio",
    formula: "max_e c_e / c̄ - 1",
    chance: "its expectation for T tokens, which tends to 0 as T grows",
    source: "Wang et al. 2024, auxiliary-loss-free load balancing (arXiv 2408.15664)",
    needs: &[Need::Ids],
    compute: |study| {
        balance::rows(study, &MAX_VIO, |balance| balance.imbalance - 1.0, |_| (0.0, f64::MAX))
    },
};
