//! The spread of the loads of experts.

use super::shared::balance;
use crate::metric::{Group, Metric, Need};

/// Rows: layer; layer x phase; layer x domain. Interval: bootstrap over sequences.
pub(crate) const COEFFICIENT_OF_VARIATION: Metric = Metric {
    name: "coefficient_of_variation",
    title: "Coefficient of variation",
    group: Group::Balance,
    unit: "ratio",
    formula: "std(c_e) / c̄, population standard deviation",
    chance: "its expectation for T tokens, which tends to 0 as T grows",
    source: "Shazeer et al. 2017 (arXiv 1701.06538), whose balance losses are its square",
    needs: &[Need::Ids],
    compute: |study| {
        balance::rows(
            study,
            &COEFFICIENT_OF_VARIATION,
            |balance| balance.variation,
            |_| (0.0, f64::MAX),
        )
    },
};
