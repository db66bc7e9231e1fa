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
        Some((
            clamp(estimate + widening * (low - mean)),
            clamp(estimate + widening * (high - mean)),
        ))
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
fn widening(units: usize) -> f64 {
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
