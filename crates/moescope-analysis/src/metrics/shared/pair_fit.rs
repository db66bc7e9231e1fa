//! Counts of pairs as the popularity of their experts explains them.

/// Quasi-independent counts of pairs: `m_ij = a_i a_j` for i ≠ j, with the row sums of the observed
/// ones.
pub(crate) struct Fit {
    experts: usize,
    /// `[E, E]`, 0 on the diagonal.
    pub(crate) expected: Vec<f64>,
}

/// Rounds of fitting; each one lessens the error to a half at worst, except where nearly all pairs
/// share one expert.
const ROUNDS: usize = 60;

impl Fit {
    /// The fit to observed counts `[E, E]`, whose diagonal is not looked at.
    pub(crate) fn new(observed: &[u32], experts: usize) -> Self {
        let sums: Vec<f64> = (0..experts)
            .map(|i| {
                let row = &observed[i * experts..(i + 1) * experts];
                row.iter().map(|&n| f64::from(n)).sum::<f64>() - f64::from(row[i])
            })
            .collect();
        let total: f64 = sums.iter().sum();
        let mut a: Vec<f64> = sums.iter().map(|sum| sum / total.max(1.0).sqrt()).collect();
        for _ in 0..ROUNDS {
            let all: f64 = a.iter().sum();
            for (a, sum) in a.iter_mut().zip(&sums) {
                let others = all - *a;
                if others > 0.0 {
                    *a = (*a + sum / others) / 2.0;
                }
            }
        }
        let mut expected = vec![0.0; experts * experts];
        for i in 0..experts {
            for j in 0..experts {
                expected[i * experts + j] = if i == j { 0.0 } else { a[i] * a[j] };
            }
        }
        Self { experts, expected }
    }

    /// For weights `s` `[E, E]` (symmetric, 0 on the diagonal) of the residuals `N - m`: the weights
    /// that take into account, to first order, that the fit moves with the counts: `s_ij - v_i - v_j`.
    pub(crate) fn residual_weights(&self, s: &[f64]) -> Vec<f32> {
        let experts = self.experts;
        let rows = |i: usize| i * experts..(i + 1) * experts;
        // dm_ij = m_ij (x_i + x_j) must give the row sums of dN: (D + M) x = dN 1, D the row sums of
        // M. Its adjoint is solved for v, with u_i = sum_j s_ij m_ij.
        let diagonal: Vec<f64> =
            (0..experts).map(|i| self.expected[rows(i)].iter().sum::<f64>()).collect();
        let u: Vec<f64> = (0..experts)
            .map(|i| std::iter::zip(&s[rows(i)], &self.expected[rows(i)]).map(|(s, m)| s * m).sum())
            .collect();
        let mut v = vec![0.0; experts];
        for _ in 0..ROUNDS / 2 {
            let mut next = vec![0.0; experts];
            for i in 0..experts {
                if diagonal[i] > 0.0 {
                    let row = &self.expected[rows(i)];
                    let others: f64 = std::iter::zip(row, &v).map(|(m, v)| m * v).sum();
                    next[i] = (v[i] + (u[i] - others) / diagonal[i]) / 2.0;
                }
            }
            v = next;
        }
        let mut weights = vec![0.0; experts * experts];
        for i in 0..experts {
            for j in (0..experts).filter(|&j| j != i) {
                weights[i * experts + j] = (s[i * experts + j] - v[i] - v[j]) as f32;
            }
        }
        weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row sums without the diagonal.
    fn sums(counts: &[f64], experts: usize) -> Vec<f64> {
        counts.chunks(experts).map(|row| row.iter().sum()).collect()
    }

    #[test]
    fn the_fit_has_the_observed_row_sums() {
        let observed = [9, 4, 2, 6, 4, 9, 1, 3, 2, 1, 9, 2, 6, 3, 2, 9];
        let fit = Fit::new(&observed, 4);
        let expected = [12.0, 8.0, 5.0, 11.0];
        for (sum, expected) in sums(&fit.expected, 4).iter().zip(expected) {
            assert!((sum - expected).abs() < 1e-6, "{sum} {expected}");
        }
    }

    #[test]
    fn even_counts_fit_evenly() {
        let fit = Fit::new(&[7; 25], 5);
        assert!(fit.expected.iter().enumerate().all(|(at, m)| {
            let expected = if at % 6 == 0 { 0.0 } else { 7.0 };
            (m - expected).abs() < 1e-6
        }));
        // What popularity explains has no influence: constant weights come to nothing.
        let s: Vec<f64> = (0..25).map(|at| f64::from(u8::from(at % 6 != 0))).collect();
        assert!(fit.residual_weights(&s).iter().all(|weight| weight.abs() < 1e-4));
    }
}
