//! Wilcoxon's signed-rank test.

use super::ranks::midranks;
use super::{Alternative, Distribution, RankTest, upper_tail};

/// More differences use the normal approximation.
const EXACT_UP_TO: usize = 50;

/// Tests whether differences of pairs lie above or below 0 (F. Wilcoxon, "Individual comparisons by
/// ranking methods", 1945).
///
/// **Zeros** are dropped, as Wilcoxon did: a pair without a difference says nothing about a direction.
/// Exact, by counting sign patterns, for at most 50 non-zero differences without ties; otherwise normal
/// with tie and continuity correction. Agrees with `scipy.stats.wilcoxon(zero_method="wilcox",
/// correction=True)`. `None` where no non-zero difference is left or one is NaN.
pub fn signed_rank(differences: &[f64], alternative: Alternative) -> Option<RankTest> {
    if differences.iter().any(|value| value.is_nan()) {
        return None;
    }
    let signed: Vec<f64> = differences.iter().copied().filter(|&value| value != 0.0).collect();
    if signed.is_empty() {
        return None;
    }
    let sizes: Vec<f64> = signed.iter().map(|value| value.abs()).collect();
    let (ranks, ties) = midranks(&sizes);
    let positive: f64 =
        signed.iter().zip(&ranks).filter(|(value, _)| **value > 0.0).map(|(_, rank)| rank).sum();
    let n = signed.len() as f64;
    let all = n * (n + 1.0) / 2.0;
    // The statistic that is large when the alternative is true.
    let towards = match alternative {
        Alternative::Greater => positive,
        Alternative::Less => all - positive,
        Alternative::TwoSided => positive.max(all - positive),
    };
    let (tail, distribution) = if ties == 0.0 && signed.len() <= EXACT_UP_TO {
        (exact_tail(signed.len(), towards), Distribution::Exact)
    } else {
        let variance = n * (n + 1.0) * (2.0 * n + 1.0) / 24.0 - ties / 48.0;
        let distance = towards - all / 2.0 - 0.5;
        (upper_tail(distance / variance.sqrt()), Distribution::Normal)
    };
    let sides = if alternative == Alternative::TwoSided { 2.0 } else { 1.0 };
    Some(RankTest { statistic: positive, p: (sides * tail).min(1.0), distribution })
}

/// P(W >= w) for n differences: the share of the 2^n sign patterns.
fn exact_tail(n: usize, w: f64) -> f64 {
    let most = n * (n + 1) / 2;
    let mut share = vec![0.0; most + 1];
    share[0] = 1.0;
    for rank in 1..=n {
        for at in (0..=most).rev() {
            let with = if at >= rank { share[at - rank] } else { 0.0 };
            share[at] = (share[at] + with) / 2.0;
        }
    }
    share.iter().skip(w.ceil().max(0.0) as usize).sum()
}
