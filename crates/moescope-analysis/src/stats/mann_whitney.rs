//! The Mann-Whitney U test.

use super::ranks::midranks;
use super::{Alternative, Distribution, RankTest, upper_tail};

/// Larger samples use the normal approximation, which is then within a few percent of the exact p.
const EXACT_UP_TO: usize = 30;

/// Tests whether values of `x` tend to be larger or smaller than values of `y` (H. Mann and D. Whitney,
/// "On a test of whether one of two random variables is stochastically larger than the other", 1947).
///
/// Exact, by counting arrangements, for samples of at most 30 without ties; otherwise normal with tie
/// and continuity correction. Agrees with `scipy.stats.mannwhitneyu`. `None` where a sample is empty or
/// holds a NaN.
pub fn mann_whitney(x: &[f64], y: &[f64], alternative: Alternative) -> Option<RankTest> {
    if x.is_empty() || y.is_empty() || x.iter().chain(y).any(|value| value.is_nan()) {
        return None;
    }
    let both: Vec<f64> = x.iter().chain(y).copied().collect();
    let (ranks, ties) = midranks(&both);
    let (n, m) = (x.len() as f64, y.len() as f64);
    let u = ranks[..x.len()].iter().sum::<f64>() - n * (n + 1.0) / 2.0;
    // The statistic that is large when the alternative is true.
    let towards = match alternative {
        Alternative::Greater => u,
        Alternative::Less => n * m - u,
        Alternative::TwoSided => u.max(n * m - u),
    };
    let (tail, distribution) = if ties == 0.0 && x.len().max(y.len()) <= EXACT_UP_TO {
        (exact_tail(x.len(), y.len(), towards), Distribution::Exact)
    } else {
        let total = n + m;
        let variance = n * m / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
        let distance = towards - n * m / 2.0 - 0.5;
        // All values equal: no arrangement differs from another.
        let tail = if variance > 0.0 { upper_tail(distance / variance.sqrt()) } else { 1.0 };
        (tail, Distribution::Normal)
    };
    let sides = if alternative == Alternative::TwoSided { 2.0 } else { 1.0 };
    Some(RankTest { statistic: u, p: (sides * tail).min(1.0), distribution })
}

/// P(U >= u) for samples of n and m: the share of arrangements, counted as the coefficients of the
/// Gaussian binomial (n + m choose n) in q.
fn exact_tail(n: usize, m: usize, u: f64) -> f64 {
    let most = n * m;
    // Product of (1 - q^(m+i)) / (1 - q^i) over i = 1..=n, as probabilities: each factor is divided by
    // its value at q = 1, (m + i) / i, so that nothing overflows.
    let mut share = vec![0.0; most + 1];
    share[0] = 1.0;
    for i in 1..=n {
        for at in (m + i..=most).rev() {
            share[at] -= share[at - m - i];
        }
        for at in i..=most {
            share[at] += share[at - i];
        }
        let scale = i as f64 / (m + i) as f64;
        share.iter_mut().for_each(|value| *value *= scale);
    }
    // The smaller half is summed: differences of large sums would lose digits.
    let from = u.ceil().max(0.0) as usize;
    if from > most {
        return 0.0;
    }
    if 2 * from > most {
        share[from..].iter().sum()
    } else {
        1.0 - share[..from].iter().sum::<f64>()
    }
}
