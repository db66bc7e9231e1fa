//! How far samples of one thing lie apart, and how well their median is known.

use super::{median, quantile, repeat};
use crate::bootstrap::Resamples;

/// Resamples behind an interval, and their seed.
const RESAMPLES: usize = 2000;
const SEED: u64 = 0x6265_6e63_6800_0001;

/// 95 % bootstrap interval of the median of positive `values`; `None` for too few of them (see
/// [`Resamples::interval`]).
pub fn median_interval(values: &[f64]) -> Option<(f64, f64)> {
    let middle = median(&mut values.to_vec())?;
    let resamples = Resamples::new(values.len(), RESAMPLES, SEED);
    let mut drawn = Vec::with_capacity(values.len());
    let mut medians: Vec<f64> = (0..resamples.len())
        .filter_map(|r| {
            repeat(values, resamples.weights(r), &mut drawn);
            median(&mut drawn)
        })
        .collect();
    resamples.interval(middle, &mut medians, (0.0, f64::MAX))
}

/// Distance of the quartiles over the median; `None` for fewer than two values.
pub fn quartile_spread(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let quartile = |share| quantile(&sorted, share);
    (sorted.len() > 1).then(|| (quartile(0.75) - quartile(0.25)) / quartile(0.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        assert_eq!(quartile_spread(&[7.0]), None);
        // Quartiles 2, 3, 4.
        assert_eq!(quartile_spread(&[5.0, 1.0, 3.0, 2.0, 4.0]), Some(2.0 / 3.0));
        assert_eq!(median_interval(&[]), None);
        assert_eq!(median_interval(&[1.0, 2.0, 3.0, 4.0]), None);
        let (low, high) = median_interval(&[10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0]).unwrap();
        assert!(low < 13.0 && 13.0 < high && low > 5.0 && high < 20.0, "{low} {high}");
    }
}
