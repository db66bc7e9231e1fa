//! Which experts run for the same token more often than their popularity explains.

mod excess;
mod fit;
mod strongest;

pub(crate) use strongest::{StrongestPairs, uniform_lift};

use crate::metric::{Metric, Need};
use crate::parallel;

/// Rows: layer x pair (i, j), for the strongest pairs of the layer in both directions; layer x phase x
/// pair and layer x domain x pair for the same ones. Interval: bootstrap over the sequences of the
/// measuring half.
pub(crate) const COACTIVATION: Metric = Metric {
    name: "coactivation",
    title: "Co-activation",
    unit: "ratio",
    formula: "P(j given i) = N_ij / N_i over the tokens of one half of the sequences, for the 10 pairs of \
              the layer that stand out most in the other half",
    chance: "(k-1)/(E-1)",
    source: "Muennighoff et al. 2024, OLMoE, section 5 (arXiv 2409.02060). Pairs are chosen and measured \
             on different text: the strongest of E (E-1) / 2 pairs of noise would look strong too",
    needs: &[Need::Ids],
    compute: strongest::conditional_rows,
};

/// Rows: as `coactivation`, i < j. Interval: bootstrap over the sequences of the measuring half.
pub(crate) const COACTIVATION_LIFT: Metric = Metric {
    name: "coactivation_lift",
    title: "Co-activation lift",
    unit: "ratio",
    formula: "P(j given i) / P(j) = N_ij T / (N_i N_j), for the pairs of `coactivation`",
    chance: "E (k-1) / (k (E-1)): a little below 1, since a token never selects an expert twice",
    source: "Lift of association rules (Brin, Motwani, Ullman and Tsur 1997), for pairs of experts",
    needs: &[Need::Ids],
    compute: strongest::lift_rows,
};

/// Rows: layer; layer x phase; layer x domain. Interval: bootstrap over sequences, first order.
pub(crate) const COACTIVATION_EXCESS: Metric = Metric {
    name: "coactivation_excess",
    title: "Co-activation beyond popularity",
    unit: "ratio",
    formula: "sum_(i<j) |N_ij - m_ij| / (2 sum_(i<j) N_ij), m_ij = a_i a_j the counts that the popularity \
              of the experts alone explains: sum_j m_ij = sum_j N_ij for every i",
    chance: "its expectation for T tokens, which tends to 0 as T grows",
    source: "Total variation distance from quasi-independence (Goodman 1968): the share of co-activations \
             that would have to fall on other pairs to leave no structure",
    needs: &[Need::Ids],
    compute: |study| {
        parallel::map(study.pairs(), |pairs| {
            let of_scope = |scope| excess::of_scope(study, pairs, scope);
            study.scopes().iter().filter_map(of_scope).collect::<Vec<_>>()
        })
        .concat()
    },
};
