//! Statistics for samples of time: rank tests, multiple testing, ratios with intervals, change points.
//!
//! Times of a program are not normal: they have a floor, a long tail and ties (clocks tick). So tests
//! here use ranks, and ratios are shifts on the log scale. Nothing draws from a global generator: the
//! same samples give the same numbers on every machine.
//!
//! | function | for |
//! |---|---|
//! | [`mann_whitney`] | two independent samples |
//! | [`signed_rank`] | pairs |
//! | [`adjust`] | many tests at once (Benjamini-Hochberg) |
//! | [`ratio_of`], [`ratio_of_pairs`] | how much larger, with an interval |
//! | [`median_interval`], [`quartile_spread`] | one sample |
//! | [`changes`] | where a series changes (E-divisive) |

mod changes;
mod mann_whitney;
mod multiple;
mod normal;
mod ranks;
mod shift;
mod signed_rank;
mod spread;
mod stretches;

pub use changes::{Change, ChangeOptions, changes, divergence};
pub use mann_whitney::mann_whitney;
pub use multiple::adjust;
pub use normal::upper_tail;
pub use shift::{Ratio, ratio_of, ratio_of_pairs};
pub use signed_rank::signed_rank;
pub use spread::{median_interval, quartile_spread};

/// What a test asks of the first sample (or of the differences) against the second (or against 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alternative {
    /// Larger or smaller.
    TwoSided,
    /// Larger.
    Greater,
    /// Smaller.
    Less,
}

/// How a p-value was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// All arrangements counted.
    Exact,
    /// Normal, with tie and continuity correction.
    Normal,
}

/// The result of a rank test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RankTest {
    /// U of the first sample, or the sum of the ranks of the positive differences.
    pub statistic: f64,
    /// Probability of a statistic at least as far out if there were no difference, in (0, 1].
    pub p: f64,
    /// How `p` was found.
    pub distribution: Distribution,
}

/// The median; `None` of an empty list. `values` is left in another order.
pub fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let even = values.len().is_multiple_of(2);
    let (below, &mut high, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    if !even {
        return Some(high);
    }
    // An even number of values has some below the middle.
    let low = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Some(low + (high - low) / 2.0)
}

/// Each value as often as its weight says; ascending values stay ascending.
fn repeat(values: &[f64], weights: impl IntoIterator<Item = u16>, out: &mut Vec<f64>) {
    out.clear();
    for (&value, weight) in values.iter().zip(weights) {
        out.extend(std::iter::repeat_n(value, usize::from(weight)));
    }
}

/// The value at a share in `0..=1` of an ascending list, by linear interpolation between order
/// statistics (R's type 7); NaN of an empty list.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = share.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (at - low as f64)
}
