//! How far the use of the experts moved from one run to another.

use std::f64::consts::LN_2;

use super::pair::Pair;
use super::usage::Use;
use super::{ComparisonMetric, Part};
use crate::bootstrap::{MIN_UNITS, Z, widening};
use crate::data::LayerData;
use crate::metric::Need;
use crate::metrics::jensen_shannon;
use crate::row::MetricRow;

/// Rows: layer; none (mean over layers). Interval: scores with moments from the bootstrap over
/// sequences, see [`Shift::interval`].
pub(super) const DISTRIBUTION_SHIFT: ComparisonMetric = ComparisonMetric {
    name: "distribution_shift",
    title: "Shift of the use of experts",
    unit: "nats",
    formula: "Jensen-Shannon divergence of p_e between a and b: H((P+Q)/2) - (H(P) + H(Q))/2, over all tokens of \
              each",
    chance: "(E-k)/(8k) (1/T_a + 1/T_b): what two independent samples of one distribution show; runs of the same \
             prompts that route alike lie below it",
    source: "Lin 1991, Divergence measures based on the Shannon entropy; the chance level is its expectation to \
             first order in 1/T for independent tokens, as for `domain_divergence`",
    part: Part::Routing,
    token_wise: false,
    needs: &[Need::Ids],
    of_each: None,
    compute: |pair| Ok(rows(pair)),
};

fn rows(pair: &Pair<'_>) -> Vec<MetricRow> {
    let row = pair.row(&DISTRIBUTION_SHIFT, pair.base.overall());
    let to_row = |layer, shift: &Shift| MetricRow {
        layer,
        value: shift.value,
        interval: shift.interval(pair.fewer().resamples.units()),
        chance: Some(shift.chance),
        ..row.clone()
    };
    let shifts: Vec<&(u16, Shift)> = pair.usage().iter().map(|layer| &layer.shift).collect();
    let by_layer = shifts.iter().map(|(layer, shift)| to_row(Some(*layer), shift));
    let whole = Shift::mean(shifts.iter().map(|(_, shift)| shift));
    by_layer.chain(whole.iter().map(|shift| to_row(None, shift))).collect()
}

/// A divergence and what resampling does to it.
pub(super) struct Shift {
    value: f64,
    chance: f64,
    /// In how many directions the distributions can differ: E - 1, summed over layers.
    directions: f64,
    /// By how much resamples move it to first order, and by how much beyond, `[R]`.
    resampled: Vec<[f64; 2]>,
}

impl Shift {
    /// Of one layer.
    pub(super) fn new(layer: &LayerData, uses: &[Use; 2]) -> Self {
        let experts = layer.experts;
        // Shares sum to E, distributions to 1.
        let distribution =
            |shares: &[f64]| -> Vec<f64> { shares.iter().map(|s| s / experts as f64).collect() };
        let [p, q] = uses.each_ref().map(|of| distribution(&of.shares));
        let value = jensen_shannon(&p, &q);
        // The derivative by p is ln(p / m) / 2, m the middle. What was never selected is in no resample.
        let slopes = |of: &[f64]| -> Vec<f64> {
            let slope = |(at, &x): (usize, &f64)| match x > 0.0 {
                true => (2.0 * x / (p[at] + q[at])).ln() / 2.0,
                false => 0.0,
            };
            of.iter().enumerate().map(slope).collect()
        };
        let (of_p, of_q) = (slopes(&p), slopes(&q));
        let moved = |slopes: &[f64], from: &[f64], to: &[f64]| -> f64 {
            slopes.iter().zip(std::iter::zip(from, to)).map(|(slope, (a, b))| slope * (b - a)).sum()
        };
        let draws = uses.each_ref().map(|of| of.resampled.chunks_exact(experts.max(1)));
        let [before, after] = draws;
        let resampled = std::iter::zip(before, after)
            .map(|(before, after)| {
                let (before, after) = (distribution(before), distribution(after));
                let linear = moved(&of_p, &p, &before) + moved(&of_q, &q, &after);
                [linear, jensen_shannon(&before, &after) - value - linear]
            })
            .collect();
        let noise = (experts as f64 - layer.top_k as f64) / (8.0 * layer.top_k as f64);
        let chance = noise * uses.iter().map(|of| 1.0 / of.tokens).sum::<f64>();
        Self { value, chance: chance.min(LN_2), directions: experts as f64 - 1.0, resampled }
    }

    /// The mean over layers; `None` where there is none.
    fn mean<'s>(shifts: impl Iterator<Item = &'s Self> + Clone) -> Option<Self> {
        let count = shifts.clone().count() as f64;
        let mut resampled = vec![[0.0; 2]; shifts.clone().next()?.resampled.len()];
        for shift in shifts.clone() {
            for (sum, [linear, rest]) in resampled.iter_mut().zip(&shift.resampled) {
                sum[0] += linear / count;
                sum[1] += rest / count;
            }
        }
        let mean = |of: fn(&Self) -> f64| shifts.clone().map(of).sum::<f64>() / count;
        let directions = shifts.clone().map(|shift| shift.directions).sum();
        let (value, chance) = (mean(|shift| shift.value), mean(|shift| shift.chance));
        Some(Self { value, chance, directions, resampled })
    }

    /// The interval: the means that the estimate D does not contradict.
    ///
    /// A divergence is a sum of squared differences. Of differences δ that are known with variance σ² its
    /// variance is `4 δ² σ² + 2 σ⁴`, which depends on what is estimated, and resampling adds noise to
    /// differences that hold noise already: around the estimate it gives `4 (δ² + σ²) σ² + 2 σ⁴`, at chance
    /// three times too much. So resamples tell the parts (the first-order one per unit of D, the rest, and the
    /// noise b that lifts them above D as it lifted D), and the interval is that of scores (Wilson 1927): all m
    /// with `|D - m| <= z sqrt(v(m))`, `v(m) = rest + first (m - b)` from b on, and `rest` below it.
    fn interval(&self, units: usize) -> Option<(f64, f64)> {
        let draws: Vec<[f64; 2]> = self
            .resampled
            .iter()
            .copied()
            .filter(|[a, b]| a.is_finite() && b.is_finite())
            .collect();
        if units < MIN_UNITS || draws.len() < 2 || draws.len() * 2 < self.resampled.len() {
            return None;
        }
        let count = draws.len() as f64;
        let mean = [0, 1].map(|at| draws.iter().map(|draw| draw[at]).sum::<f64>() / count);
        let variance = [0, 1].map(|at| {
            let squares = draws.iter().map(|draw| (draw[at] - mean[at]).powi(2));
            squares.sum::<f64>() / (count - 1.0)
        });
        let noise = mean[0] + mean[1];
        // The spread of the noise over directions is seen in as many sequences only: what that adds is taken
        // off. Over all directions alike it is least.
        let rest = variance[1] - 2.0 * noise * noise / units as f64;
        let rest = rest.max(2.0 * noise * noise / self.directions);
        let first = if self.value > 0.0 { variance[0] / self.value } else { 0.0 };
        let z = Z * widening(units);
        // Roots of (m - D)² = z² v(m).
        let (flat, middle) = (z * rest.sqrt(), self.value + z * z * first / 2.0);
        let square = middle * middle - self.value * self.value - z * z * (first * noise - rest);
        let root = square.max(0.0).sqrt();
        let low = if self.value - flat < noise { self.value - flat } else { middle - root };
        let high = if self.value + flat < noise { self.value + flat } else { middle + root };
        Some((low.clamp(0.0, LN_2), high.clamp(0.0, LN_2)))
    }
}
