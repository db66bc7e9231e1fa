//! Where a series changes: E-divisive.
//!
//! D. Matteson and N. James, "A nonparametric approach for multiple change point analysis of
//! multivariate data", 2014 (arXiv 1306.4933), for one variable: the split with the largest energy
//! distance between the values before it and after it is tested, then each part is split in turn, until
//! the best split left is not significant. MongoDB (D. Daly et al., ICPE 2020) and Apache Otava (M.
//! Fleming et al., "Hunter", ICPE 2023) find changes of benchmark results this way.
//!
//! **Which test.** The paper's permutation test, as MongoDB uses it: values are shuffled within the parts
//! found so far and the best split of the shuffled series is compared. Otava replaces it by Student's t
//! for speed and for a result that does not vary; but t was not made for the best of many splits nor for
//! long tails, and here the generator is seeded, so the result does not vary either.
//!
//! **What it can't tell.** A change among the newest values is found only once enough of them are there:
//! with one or two values after a change there is no evidence against chance yet (the gate is for that).

use crate::rng::Rng;

/// How changes are looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChangeOptions {
    /// Largest p of a change.
    pub significance: f64,
    /// Shuffles per test; the smallest p is `1 / (permutations + 1)`.
    pub permutations: usize,
    /// Fewest values between two changes, at least 1.
    pub min_size: usize,
    /// Seed of the shuffles.
    pub seed: u64,
}

impl Default for ChangeOptions {
    fn default() -> Self {
        Self { significance: 0.01, permutations: 499, min_size: 3, seed: 20_140_430 }
    }
}

/// A change of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Index of the first value after it.
    pub index: usize,
    /// Its energy distance, scaled; see [`divergence`].
    pub divergence: f64,
    /// Share of shuffles with a split at least as good, in (0, 1].
    pub p: f64,
}

/// Values beyond which only the newest are looked at: each shuffle takes quadratic time.
const MAX_VALUES: usize = 1000;

/// The changes of a series, in order of their index. Of a series longer than 1,000 values the newest
/// 1,000 are looked at. A series with a value that is not finite has none.
pub fn changes(series: &[f64], options: &ChangeOptions) -> Vec<Change> {
    let skipped = series.len().saturating_sub(MAX_VALUES);
    let series = &series[skipped..];
    let mut found: Vec<Change> = Vec::new();
    if series.iter().any(|value| !value.is_finite()) {
        return found;
    }
    let mut rng = Rng::new(options.seed);
    let mut shuffled = series.to_vec();
    loop {
        let bounds: Vec<usize> = std::iter::once(0)
            .chain(found.iter().map(|change| change.index))
            .chain([series.len()])
            .collect();
        let Some((index, best)) = best_of(series, &bounds, options.min_size) else { break };
        // Nothing differs at all: a constant series.
        if best <= 0.0 {
            break;
        }
        let mut as_good = 0;
        for _ in 0..options.permutations {
            shuffled.copy_from_slice(series);
            for part in bounds.windows(2) {
                shuffle(&mut shuffled[part[0]..part[1]], &mut rng);
            }
            let other = best_of(&shuffled, &bounds, options.min_size);
            // A sum taken in another order may differ in its last bits.
            as_good += usize::from(other.is_some_and(|(_, other)| other >= best * (1.0 - 1e-12)));
        }
        let p = (as_good + 1) as f64 / (options.permutations + 1) as f64;
        if p > options.significance {
            break;
        }
        let at = found.partition_point(|change| change.index < index);
        found.insert(at, Change { index, divergence: best, p });
    }
    found.iter_mut().for_each(|change| change.index += skipped);
    found
}

/// The best split over all parts: its index and divergence.
fn best_of(series: &[f64], bounds: &[usize], min_size: usize) -> Option<(usize, f64)> {
    let mut best: Option<(usize, f64)> = None;
    for part in bounds.windows(2) {
        if let Some((index, value)) = best_split(&series[part[0]..part[1]], min_size)
            && best.is_none_or(|(_, most)| value > most)
        {
            best = Some((part[0] + index, value));
        }
    }
    best
}

/// The split of one part with the largest divergence between the values before it and those that
/// follow, up to any end (κ in the paper: a second change further on must not hide the first).
fn best_split(part: &[f64], min_size: usize) -> Option<(usize, f64)> {
    let (n, size) = (part.len(), min_size.max(1));
    if n < 2 * size {
        return None;
    }
    // Distances of each value from all before it, and from the first `split` values.
    let to_earlier: Vec<f64> = (0..n).map(|at| from(part[at], &part[..at])).collect();
    let mut to_first = vec![0.0; n];
    let mut before = 0.0;
    let mut best: Option<(usize, f64)> = None;
    for split in 1..=n - size {
        let last = part[split - 1];
        before += to_earlier[split - 1];
        for (sum, value) in to_first[split..].iter_mut().zip(&part[split..]) {
            *sum += (value - last).abs();
        }
        if split < size {
            continue;
        }
        let (mut between, mut after) = (0.0, 0.0);
        for end in split + 1..=n {
            between += to_first[end - 1];
            after += to_earlier[end - 1] - to_first[end - 1];
            if end - split >= size {
                let scaled = scaled(split, end - split, between, before, after);
                if best.is_none_or(|(_, most)| scaled > most) {
                    best = Some((split, scaled));
                }
            }
        }
    }
    best
}

/// The scaled energy distance of two samples (Q̂ in the paper, with exponent 1):
/// `nm / (n+m) (2 E|X-Y| - E|X-X'| - E|Y-Y'|)`, means over pairs of different values.
pub fn divergence(x: &[f64], y: &[f64]) -> f64 {
    let between = x.iter().map(|value| from(*value, y)).sum();
    scaled(x.len(), y.len(), between, within(x), within(y))
}

fn scaled(n: usize, m: usize, between: f64, within_x: f64, within_y: f64) -> f64 {
    let (n, m) = (n as f64, m as f64);
    // A single value has no pair: nothing within.
    let mean = |sum: f64, n: f64| if n > 1.0 { 2.0 * sum / (n * (n - 1.0)) } else { 0.0 };
    n * m / (n + m) * (2.0 * between / (n * m) - mean(within_x, n) - mean(within_y, m))
}

/// Sum of the distances of a value from others.
fn from(value: f64, others: &[f64]) -> f64 {
    others.iter().map(|other| (value - other).abs()).sum()
}

/// Sum of the distances over all pairs.
fn within(values: &[f64]) -> f64 {
    (1..values.len()).map(|at| from(values[at], &values[..at])).sum()
}

/// Fisher and Yates.
fn shuffle(values: &mut [f64], rng: &mut Rng) {
    for last in (1..values.len()).rev() {
        values.swap(last, rng.below(last + 1));
    }
}
