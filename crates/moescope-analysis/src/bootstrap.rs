//! 95 % intervals by resampling sequences.
//!
//! The unit that is drawn with replacement is a sequence (or a group of sequences, see
//! [`crate::Groups`]), never a token. Each metric brings sums per unit; a resample is a vector of
//! multiplicities, so that a resampled statistic is a weighted sum of units and the trace itself is
//! read once, however many resamples there are.
//!
//! **Which interval.** The statistics here include biased ones: resampling adds a second dose of
//! sampling noise, which pushes a maximum or a Gini coefficient up, and a plain percentile interval
//! would then miss the estimate itself. So the resampled distribution is used for its spread and
//! is centred on the estimate: `estimate + w (q - mean)` for its 2.5 % and 97.5 % quantiles q. The
//! interval is for what another set of as many such prompts would give. `w` widens
//! for small numbers of units n, `sqrt(n / (n-1)) t(n-1) / z`, which is the "expanded percentile"
//! correction of T. Hesterberg, "What Teachers Should Know About the Bootstrap", 2014 (arXiv
//! 1411.5279).

use crate::rng::Rng;
use crate::simd::{self, Kernel};

/// Fewest sequences for an interval: with less, the spread between them is not known.
pub const MIN_UNITS: usize = 5;

/// 97.5 % quantile of the standard normal distribution.
pub(crate) const Z: f64 = 1.959_963_984_540_054;

/// Multiplicities of U units in R resamples.
#[derive(Clone, Debug)]
pub struct Resamples {
    units: usize,
    count: usize,
    /// What [`Resamples::new`] was asked for.
    request: (usize, u64),
    /// `[R, U]`; each row sums to U.
    weights: Vec<u16>,
}

impl Resamples {
    /// Draws `count` resamples of `units` units. Fewer than [`MIN_UNITS`] units give none.
    pub fn new(units: usize, count: usize, seed: u64) -> Self {
        let request = (count, seed);
        let count = if units < MIN_UNITS { 0 } else { count };
        let mut rng = Rng::new(seed ^ (units as u64).wrapping_mul(0xA24B_AED4_963E_E407));
        let mut weights = vec![0u16; count * units];
        for row in weights.chunks_exact_mut(units.max(1)) {
            for _ in 0..units {
                let drawn = rng.below(units);
                row[drawn] = row[drawn].saturating_add(1);
            }
        }
        Self { units, count, request, weights }
    }

    /// As many resamples, but of another number of units.
    pub fn with_units(&self, units: usize) -> Self {
        Self::new(units, self.request.0, self.request.1)
    }

    /// Number of resamples, R; 0 where no interval can be given.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no resamples, and so no intervals.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Number of units, U.
    pub fn units(&self) -> usize {
        self.units
    }

    /// Multiplicities of resample `r`, `[U]`.
    pub fn weights(&self, r: usize) -> &[u16] {
        &self.weights[r * self.units..(r + 1) * self.units]
    }

    /// Weighted column sums of `rows` `[U, W]` in resample `r`, written to `out` `[W]`.
    pub fn sums(&self, r: usize, rows: &[f64], out: &mut [f64]) {
        out.fill(0.0);
        for (row, &weight) in rows.chunks_exact(out.len().max(1)).zip(self.weights(r)) {
            if weight == 0 {
                continue;
            }
            let weight = f64::from(weight);
            for (sum, value) in out.iter_mut().zip(row) {
                *sum += weight * value;
            }
        }
    }

    /// Calls `each(r, sums)` with the weighted column sums `[W]` of `rows` `[U, W]` in each of the
    /// first `count` resamples, in order. It is a product of two matrices, and computed as one.
    pub fn each_sum(
        &self,
        count: usize,
        rows: &[f64],
        width: usize,
        mut each: impl FnMut(usize, &[f64]),
    ) {
        let count = count.min(self.len());
        let mut weights = vec![[0.0; BLOCK]; self.units];
        let mut sums = vec![0.0; BLOCK * width];
        for first in (0..count).step_by(BLOCK) {
            let block = BLOCK.min(count - first);
            for at in 0..block {
                for (to, &weight) in weights.iter_mut().zip(self.weights(first + at)) {
                    to[at] = f64::from(weight);
                }
            }
            simd::run(WeightedSums { weights: &weights, rows, width, sums: &mut sums });
            for (at, sums) in sums.chunks_exact(width.max(1)).take(block).enumerate() {
                each(first + at, sums);
            }
        }
    }

    /// The interval of a statistic that is (to first order) `estimate` plus the sum over units of
    /// `influence` `[U]`, which sums to 0: what each unit moves it by.
    ///
    /// It serves statistics that are too costly to compute anew in every resample. This is the
    /// infinitesimal jackknife as a bootstrap (B. Efron, "The Jackknife, the Bootstrap and Other
    /// Resampling Plans", 1982, chapter 6): at chance, where a maximum or a divergence is less than
    /// linear, it overstates the spread, and never understates it.
    pub fn linear_interval(
        &self,
        estimate: f64,
        influence: &[f64],
        bounds: (f64, f64),
    ) -> Option<(f64, f64)> {
        let mut values = Vec::with_capacity(self.len());
        self.each_sum(self.len(), influence, 1, |_, sums| values.push(estimate + sums[0]));
        self.interval(estimate, &mut values, bounds)
    }

    /// The interval of a statistic with this estimate and these resampled values, see the module
    /// docs; `None` where there are too few of them. `values` is left in another order, without
    /// its non-finite members (resamples in which the statistic is not defined).
    pub fn interval(
        &self,
        estimate: f64,
        values: &mut Vec<f64>,
        bounds: (f64, f64),
    ) -> Option<(f64, f64)> {
        let drawn = values.len();
        values.retain(|value| value.is_finite());
        // A statistic that is undefined in most resamples has no spread worth reporting.
        if self.units < MIN_UNITS || values.is_empty() || values.len() * 2 < drawn {
            return None;
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let last = (values.len() - 1) as f64;
        let (low_rank, high_rank) = ((0.025 * last).floor(), (0.975 * last).ceil());
        let low = *values.select_nth_unstable_by(low_rank as usize, f64::total_cmp).1;
        let high = *values.select_nth_unstable_by(high_rank as usize, f64::total_cmp).1;
        let widening = widening(self.units);
        let clamp = |value: f64| value.max(bounds.0).min(bounds.1);
        // Where nearly all resamples agree and a few lie far off, their mean is beyond both quantiles: an
        // interval holds its estimate all the same.
        Some((
            clamp(estimate + widening * (low - mean).min(0.0)),
            clamp(estimate + widening * (high - mean).max(0.0)),
        ))
    }
}

/// Resamples summed at once, so that every row is read once for all of them.
const BLOCK: usize = 4;

/// Columns whose sums stay in registers.
const COLUMNS: usize = 8;

/// Sums of `rows` `[U, W]` weighted by each of [`BLOCK`] weights, into `sums` `[BLOCK, W]`.
struct WeightedSums<'a> {
    /// `[U, BLOCK]`
    weights: &'a [[f64; BLOCK]],
    rows: &'a [f64],
    width: usize,
    sums: &'a mut [f64],
}

impl Kernel for WeightedSums<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { weights, rows, width, sums } = self;
        let whole = width - width % COLUMNS;
        for column in (0..whole).step_by(COLUMNS) {
            let mut block = [[0.0; COLUMNS]; BLOCK];
            for (row, weights) in rows.chunks_exact(width).zip(weights) {
                let Some(row) = row[column..].first_chunk::<COLUMNS>() else {
                    return; // Not reached: a whole block of columns lies in every row.
                };
                for (sums, weight) in block.iter_mut().zip(weights) {
                    for (sum, value) in sums.iter_mut().zip(row) {
                        *sum += weight * value;
                    }
                }
            }
            for (at, block) in block.iter().enumerate() {
                sums[at * width + column..][..COLUMNS].copy_from_slice(block);
            }
        }
        for column in whole..width {
            let mut block = [0.0; BLOCK];
            for (row, weights) in rows.chunks_exact(width).zip(weights) {
                for (sum, weight) in block.iter_mut().zip(weights) {
                    *sum += weight * row[column];
                }
            }
            for (at, sum) in block.iter().enumerate() {
                sums[at * width + column] = *sum;
            }
        }
    }
}

/// The standard normal number as extreme as `distance` from an estimate is, given the reach of
/// that estimate's 95 % interval over `units` units (D. Wallace, "Bounds on normal approximations
/// to Student's and the chi-square distributions", 1959). Far out in the tail, a spread that was
/// estimated from few sequences means less than it does at 95 %.
pub(crate) fn deviate(distance: f64, reach: f64, units: usize) -> f64 {
    let freedom = units.max(2) as f64 - 1.0;
    let t = distance.abs() * student_t(freedom) / reach;
    if t.is_infinite() {
        return t;
    }
    (8.0 * freedom + 1.0) / (8.0 * freedom + 3.0) * (freedom * (t * t / freedom).ln_1p()).sqrt()
}

/// `sqrt(n / (n-1)) t(n-1) / z` for n units.
pub(crate) fn widening(units: usize) -> f64 {
    let n = units as f64;
    (n / (n - 1.0)).sqrt() * student_t(n - 1.0) / Z
}

/// 97.5 % quantile of Student's t (Cornish-Fisher expansion; Abramowitz and Stegun 26.7.5),
/// within 0.3 % from 4 degrees of freedom on.
fn student_t(freedom: f64) -> f64 {
    let z = Z;
    let (z3, z5, z7) = (z.powi(3), z.powi(5), z.powi(7));
    z + (z3 + z) / (4.0 * freedom)
        + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * freedom.powi(2))
        + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / (384.0 * freedom.powi(3))
}
