//! How far samples of one thing lie apart, and how well their median is known.

use super::{
    median, quantile, repeat,
    stretches::{Resampled, wider},
};

/// Resamples behind an interval, and their seed.
const RESAMPLES: usize = 2000;
const SEED: u64 = 0x6265_6e63_6800_0001;

/// 95 % bootstrap interval of the median of positive `values` in the order they were taken, on the scale of their
/// logarithms: a time twice as long is as far as one half as long, and no end reaches 0. `None` for fewer values
/// than [`crate::bootstrap::MIN_UNITS`], or where one is not positive. From 20 values on neighbours may resemble each other: stretches of
/// consecutive ones are resampled as well, and the wider side of both intervals counts.
pub fn median_interval(values: &[f64]) -> Option<(f64, f64)> {
    let logarithms: Vec<f64> = values.iter().map(|value| value.ln()).collect();
    if logarithms.iter().any(|log| !log.is_finite()) {
        return None;
    }
    let middle = median(&mut logarithms.clone())?;
    let mut drawn = Vec::with_capacity(values.len());
    let interval = |resampled: &Resampled| {
        let resamples = resampled.resamples();
        let mut medians: Vec<f64> = (0..resamples.len())
            .filter_map(|r| {
                repeat(&logarithms, (0..).map(|at| resampled.weight(r, at)), &mut drawn);
                median(&mut drawn)
            })
            .collect();
        resamples.interval(middle, &mut medians, (f64::MIN, f64::MAX))
    };
    let both = Resampled::both(values.len(), RESAMPLES, SEED);
    let (low, high) = both.iter().map(interval).fold(None, wider)?;
    Some((low.exp(), high.exp()))
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
        assert_eq!(median_interval(&[1.0, 2.0, 0.0, 4.0, 5.0]), None);
        // One of five that took ten times as long: the low end of a rate stays a rate.
        let rates = [100.0, 100.0, 10.0, 101.0, 99.0];
        let (low, high) = median_interval(&rates).unwrap();
        assert!(low > 1.0 && low < 99.0 && high > 100.0, "{low} {high}");
        // The interval of times is that of their rates.
        let times = rates.map(|rate| 1.0 / rate);
        let (short, long) = median_interval(&times).unwrap();
        assert!((short * high - 1.0).abs() < 1e-9 && (long * low - 1.0).abs() < 1e-9);
        let (low, high) = median_interval(&[10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0]).unwrap();
        assert!(low < 13.0 && 13.0 < high && low > 5.0 && high < 20.0, "{low} {high}");
    }
}
