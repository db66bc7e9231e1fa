//! As how many evenly used experts the layer counts.

use super::shared::balance;
use crate::metric::{Group, Metric, Need};

/// Rows: layer; layer x phase; layer x domain. Interval: bootstrap over sequences.
pub(crate) const EFFECTIVE_EXPERTS: Metric = Metric {
    name: "effective_experts",
    title: "Effective experts",
    group: Group::Balance,
    unit: "experts",
    formula: "exp(-sum_e p_e ln p_e)",
    chance: "its expectation for T tokens, which tends to E as T grows",
    source: "Hill 1973, diversity of order 1: as many evenly used experts have the same entropy",
    needs: &[Need::Ids],
    compute: |study| {
        let bounds = |experts: usize| (1.0, experts as f64);
        balance::rows(study, &EFFECTIVE_EXPERTS, |balance| balance.effective_experts, bounds)
    },
};
