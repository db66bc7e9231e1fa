//! Chance levels and intervals themselves.

use moescope_analysis::bootstrap::{MIN_UNITS, Resamples};
use moescope_analysis::chance::uniform_balance;

use crate::support::close;

#[test]
fn one_token_of_one_expert() {
    // Whatever it takes, one expert has everything.
    let balance = uniform_balance(4, 1, 1).unwrap();
    assert_eq!((balance.imbalance, balance.gini), (4.0, 0.75));
    close(balance.effective_experts, 1.0);
}

#[test]
fn two_tokens_of_two_experts() {
    // [2, 0] or [0, 2] half of the time, else [1, 1]: imbalance (2 + 1) / 2.
    let balance = uniform_balance(2, 1, 2).unwrap();
    assert!((balance.imbalance - 1.5).abs() < 0.08, "{balance:?}");
    assert!((balance.gini - 0.25).abs() < 0.04, "{balance:?}");
}

#[test]
fn all_experts_leave_no_noise() {
    let balance = uniform_balance(8, 8, 3).unwrap();
    assert_eq!((balance.imbalance, balance.variation), (1.0, 0.0));
}

#[test]
fn variation_is_that_of_the_sampling() {
    // E[CV²] = (1 - k/E) / (T k/E), drawn one by one and from the normal distribution.
    for (experts, top_k, tokens) in [(16, 2, 300), (16, 2, 30_000), (128, 8, 5_000), (4, 1, 200)] {
        let share = top_k as f64 / experts as f64;
        let expected = ((1.0 - share) / (tokens as f64 * share)).sqrt();
        let found = uniform_balance(experts, top_k, tokens).unwrap().variation;
        // The mean of a root is a little below the root of the mean.
        let ratio = found / expected;
        assert!((0.88..1.02).contains(&ratio), "E {experts} k {top_k} T {tokens}: {ratio}");
    }
}

#[test]
fn nothing_to_expect() {
    for (experts, top_k, tokens) in [(0, 0, 5), (4, 0, 5), (4, 5, 5), (4, 2, 0)] {
        assert_eq!(uniform_balance(experts, top_k, tokens), None);
    }
}

#[test]
fn resamples_draw_as_many_units() {
    let resamples = Resamples::new(12, 200, 1);
    assert_eq!(resamples.len(), 200);
    for r in 0..resamples.len() {
        assert_eq!(resamples.weights(r).iter().map(|&weight| u32::from(weight)).sum::<u32>(), 12);
    }
    let rows: Vec<f64> = (0..24).map(f64::from).collect();
    let mut sums = [0.0; 2];
    resamples.sums(3, &rows, &mut sums);
    let by_hand: f64 =
        (0..12).map(|unit| f64::from(resamples.weights(3)[unit]) * rows[unit * 2 + 1]).sum();
    assert_eq!(sums[1], by_hand);
    assert!(Resamples::new(MIN_UNITS - 1, 200, 1).is_empty());
    assert!(Resamples::new(0, 200, 1).is_empty());
}

/// Nearly all resamples agree and one lies far off: their mean is beyond both quantiles.
#[test]
fn an_interval_holds_its_estimate() {
    let resamples = Resamples::new(6, 50, 1);
    for far in [-9.0, 9.0] {
        let mut values = vec![1.0; 49];
        values.push(far);
        let (low, high) = resamples.interval(1.0, &mut values, (f64::MIN, f64::MAX)).unwrap();
        assert!(low <= 1.0 && 1.0 <= high, "{far}: {low} to {high}");
    }
}

#[test]
fn interval_by_hand() {
    // 0..=100: mean 50, 2.5 % and 97.5 % quantiles 2 and 98. Five units: t(4) = 2.776.
    let widening = (5.0f64 / 4.0).sqrt() * 2.776_445 / 1.959_964;
    let resamples = Resamples::new(5, 101, 1);
    let mut values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
    let (low, high) = resamples.interval(40.0, &mut values, (f64::MIN, f64::MAX)).unwrap();
    assert!((low - (40.0 - 48.0 * widening)).abs() < 0.3, "{low}");
    assert!((high - (40.0 + 48.0 * widening)).abs() < 0.3, "{high}");
    let mut values: Vec<f64> = (0..=100).map(f64::from).collect();
    let bounded = resamples.interval(40.0, &mut values, (0.0, 100.0));
    assert_eq!(bounded, Some((0.0, 100.0)));
    // Undefined in most resamples.
    let mut values = vec![f64::NAN, f64::NAN, f64::NAN, 1.0];
    assert_eq!(resamples.interval(1.0, &mut values, (0.0, 2.0)), None);
}

#[test]
fn many_units_need_no_widening() {
    let resamples = Resamples::new(2000, 10, 1);
    let mut values: Vec<f64> = (0..=100).map(f64::from).collect();
    let (low, high) = resamples.interval(50.0, &mut values, (f64::MIN, f64::MAX)).unwrap();
    assert!((low - 2.0).abs() < 0.1 && (high - 98.0).abs() < 0.1, "{low} {high}");
}
