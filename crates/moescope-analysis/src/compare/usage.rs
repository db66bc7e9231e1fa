//! How often each expert was selected in two runs: resampled once for all that looks at it.

use super::distribution_shift::Shift;
use super::pair::Pair;
use super::utilisation_difference;
use crate::counts::{LayerCounts, column_sums};
use crate::data::LayerData;
use crate::metrics::shares;
use crate::parallel;
use crate::row::MetricRow;
use crate::study::Scope;

/// What the use of the experts of one layer in two runs comes to.
pub(super) struct LayerUsage {
    /// Rows of `utilisation_difference`.
    pub(super) differences: Vec<MetricRow>,
    /// Of the distributions, and the model layer it is about.
    pub(super) shift: (u16, Shift),
}

/// Use of the experts of one layer in one run.
pub(super) struct Use {
    /// Tokens with routing.
    pub(super) tokens: f64,
    /// c_e / c̄, `[E]`.
    pub(super) shares: Vec<f64>,
    /// The same in each resample, `[R, E]`; NaN where nothing was selected.
    pub(super) resampled: Vec<f64>,
}

impl LayerUsage {
    /// Of every layer in which both runs selected something.
    pub(super) fn all(pair: &Pair<'_>) -> Vec<Self> {
        let layers: Vec<_> = std::iter::zip(pair.base.counted(), pair.other.counts()).collect();
        let of_layer = |((layer, before), after): &((&LayerData, &LayerCounts), &LayerCounts)| {
            let scopes = [pair.base.overall(), &pair.other_scope];
            // Resamples are looked at in pairs.
            let count = scopes[0].resamples.len().min(scopes[1].resamples.len());
            let uses = [
                Use::of(layer, before, scopes[0], count)?,
                Use::of(layer, after, scopes[1], count)?,
            ];
            Some(Self {
                differences: utilisation_difference::rows(pair, layer, &uses),
                shift: (layer.layer, Shift::new(layer, &uses)),
            })
        };
        parallel::map(&layers, of_layer).into_iter().flatten().collect()
    }
}

impl Use {
    /// `None` where nothing was selected.
    fn of(layer: &LayerData, counts: &LayerCounts, scope: &Scope, count: usize) -> Option<Self> {
        let experts = layer.experts;
        let rows = counts.rows(&scope.units, None);
        let estimate = shares(&column_sums(&rows, experts))?;
        let mut resampled = Vec::with_capacity(count * experts);
        scope.resamples.each_sum(count, &rows, experts, |_, sums| match shares(sums) {
            Some(shares) => resampled.extend(shares),
            None => resampled.resize(resampled.len() + experts, f64::NAN),
        });
        let tokens = counts.tokens(&scope.units, None).iter().sum();
        Some(Self { tokens, shares: estimate, resampled })
    }
}
