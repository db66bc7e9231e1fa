//! Which experts a model would miss least.
//!
//! Three rankings of the experts of a layer, over the tokens that selected them:
//!
//! | | | needs |
//! |---|---|---|
//! | [`Ranking::Reap`] | mean of g_e(x) norm2(f_e(x)), g renormalised over the top-k (Lasby et al. 2025, arXiv 2510.13999) | weights, output norms |
//! | [`Ranking::Ean`] | sum of norm2(f_e(x)) | output norms |
//! | [`Ranking::Frequency`] | c_e | ids |
//!
//! f_e(x) is the output of expert e before the routing weight.
//!
//! ```
//! use moescope_analysis::LayerData;
//! use moescope_analysis::simulate::saliency::{Ranking, Saliency};
//!
//! let mut layer = LayerData::from_ids(0, 3, 2, vec![0, 1, 1, 0]);
//! layer.weights = Some(vec![0.75, 0.25, 1.0, 1.0]);
//! layer.output_norms = Some(vec![4.0, 8.0, 2.0, 6.0]);
//! let saliency = Saliency::of(&layer, 0..2);
//! assert_eq!(saliency.by(Ranking::Frequency).unwrap(), [2.0, 2.0, 0.0]);
//! assert_eq!(saliency.by(Ranking::Ean).unwrap(), [10.0, 10.0, 0.0]);
//! // (0.75 * 4 + 0.5 * 6) / 2 and (0.25 * 8 + 0.5 * 2) / 2.
//! assert_eq!(saliency.by(Ranking::Reap).unwrap(), [3.0, 1.5, 0.0]);
//! assert_eq!(saliency.least_first(Ranking::Reap).unwrap(), [2, 1, 0]);
//! ```

use std::ops::Range;

use crate::data::LayerData;

/// What experts are ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranking {
    /// What an expert adds per token that selects it.
    Reap,
    /// What an expert adds in all.
    Ean,
    /// How often it is selected.
    Frequency,
}

impl Ranking {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Reap, Self::Ean, Self::Frequency];
}

/// Sums over tokens from which the rankings follow. Sums of several stretches add up.
#[derive(Clone, Debug, PartialEq)]
pub struct Saliency {
    /// Tokens that selected each expert, `[E]`.
    pub selections: Vec<f64>,
    /// Sum of the norms of its outputs, `[E]`; `None` where none were recorded.
    pub norms: Option<Vec<f64>>,
    /// Sum of the norms times the renormalised weights, `[E]`; `None` where either was not recorded.
    pub weighted: Option<Vec<f64>>,
}

impl Saliency {
    /// Nothing yet, of what a layer has recorded.
    pub fn new(layer: &LayerData) -> Self {
        let zero = || vec![0.0; layer.experts];
        let norms = layer.output_norms.as_ref();
        let weighted = norms.and(layer.weights.as_ref());
        Self {
            selections: zero(),
            norms: norms.map(|_| zero()),
            weighted: weighted.map(|_| zero()),
        }
    }

    /// Over tokens of a layer. Where the layer has weights or output norms, a token in which one of them is
    /// missing, or whose weights sum to 0, is left out.
    pub fn of(layer: &LayerData, tokens: Range<usize>) -> Self {
        let mut saliency = Self::new(layer);
        saliency.add(layer, tokens);
        saliency
    }

    /// Adds tokens of the layer that it was made for.
    pub fn add(&mut self, layer: &LayerData, tokens: Range<usize>) {
        let k = layer.top_k;
        let all_norms = layer.output_norms.as_deref();
        let all_weights = all_norms.and(layer.weights.as_deref());
        for token in tokens {
            let selected = layer.selected(token);
            let places = token * k..token * k + selected.len();
            let norms = all_norms.map(|norms| &norms[places.clone()]);
            let weights = all_weights.map(|weights| &weights[places]);
            let finite =
                |values: Option<&[f32]>| values.is_none_or(|v| v.iter().all(|v| v.is_finite()));
            let total: f64 =
                weights.map_or(1.0, |weights| weights.iter().copied().map(f64::from).sum());
            if !finite(norms) || !finite(weights) || total <= 0.0 {
                continue;
            }
            for (at, &id) in selected.iter().enumerate() {
                let id = usize::from(id);
                self.selections[id] += 1.0;
                let (Some(norms), Some(sums)) = (norms, &mut self.norms) else { continue };
                let norm = f64::from(norms[at]);
                sums[id] += norm;
                if let (Some(weights), Some(weighted)) = (weights, &mut self.weighted) {
                    weighted[id] += f64::from(weights[at]) / total * norm;
                }
            }
        }
    }

    /// What a ranking goes by, `[E]`; `None` where it takes what was not recorded. The REAP saliency of an
    /// expert that was never selected is 0.
    pub fn by(&self, ranking: Ranking) -> Option<Vec<f64>> {
        match ranking {
            Ranking::Reap => {
                let sums = self.weighted.as_ref()?.iter().zip(&self.selections);
                Some(sums.map(|(&sum, &count)| mean(sum, count)).collect())
            }
            Ranking::Ean => self.norms.clone(),
            Ranking::Frequency => Some(self.selections.clone()),
        }
    }

    /// Experts with the least first; of equal ones the less used, then the lower. `None` as for
    /// [`Saliency::by`].
    pub fn least_first(&self, ranking: Ranking) -> Option<Vec<usize>> {
        let values = self.by(ranking)?;
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| {
            let used = || self.selections[a].total_cmp(&self.selections[b]);
            values[a].total_cmp(&values[b]).then_with(used)
        });
        Some(order)
    }
}

/// A sum over the tokens that selected an expert, per token; 0 where none did.
pub(crate) fn mean(sum: f64, count: f64) -> f64 {
    if count > 0.0 { sum / count } else { 0.0 }
}

/// Share of the sum of `values` that is removed when the first n of `order` go, for n = 1.., `[E]`;
/// zeros where the sum is 0.
pub fn removed(values: &[f64], order: &[usize]) -> Vec<f64> {
    let total: f64 = values.iter().sum();
    let mut sum = 0.0;
    order
        .iter()
        .map(|&expert| {
            sum += values[expert];
            if total > 0.0 { (sum / total).min(1.0) } else { 0.0 }
        })
        .collect()
}
