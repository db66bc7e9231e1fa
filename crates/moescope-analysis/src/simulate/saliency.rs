//! Which experts a model would miss least.
//!
//! Three rankings of the experts of a layer, over the tokens that selected them:
//!
//! | | |
//! |---|---|
//! | frequency | c_e |
//! | EAN | sum of norm2(f_e(x)) |
//! | REAP | mean of g_e(x) norm2(f_e(x)), g renormalised over the top-k (Lasby et al. 2025, arXiv 2510.13999) |
//!
//! f_e(x) is the output of expert e before the routing weight.
//!
//! ```
//! use moescope_analysis::LayerData;
//! use moescope_analysis::simulate::saliency::Saliency;
//!
//! let mut layer = LayerData::from_ids(0, 3, 2, vec![0, 1, 1, 0]);
//! layer.weights = Some(vec![0.75, 0.25, 1.0, 1.0]);
//! layer.output_norms = Some(vec![4.0, 8.0, 2.0, 6.0]);
//! let saliency = Saliency::of(&layer, 0..2).unwrap();
//! assert_eq!(saliency.selections, [2.0, 2.0, 0.0]);
//! assert_eq!(saliency.norms, [10.0, 10.0, 0.0]);
//! // (0.75 * 4 + 0.5 * 6) / 2 and (0.25 * 8 + 0.5 * 2) / 2.
//! assert_eq!(saliency.reap(), [3.0, 1.5, 0.0]);
//! assert_eq!(saliency.least_salient(), [2, 1, 0]);
//! ```

use std::ops::Range;

use crate::data::LayerData;

/// Sums over tokens from which the rankings follow. Sums of several stretches add up.
#[derive(Clone, Debug, PartialEq)]
pub struct Saliency {
    /// Tokens that selected each expert, `[E]`.
    pub selections: Vec<f64>,
    /// Sum of the norms of its outputs, `[E]`: EAN.
    pub norms: Vec<f64>,
    /// Sum of the norms times the renormalised weights, `[E]`.
    pub weighted: Vec<f64>,
    /// Sum of the squares of the norms times the renormalised weights, over all experts.
    pub squares: f64,
}

impl Saliency {
    /// Nothing yet, for E experts.
    pub fn new(experts: usize) -> Self {
        let zero = || vec![0.0; experts];
        Self { selections: zero(), norms: zero(), weighted: zero(), squares: 0.0 }
    }

    /// Over tokens of a layer; `None` where it has no weights or no output norms. A token in which
    /// either is missing, or whose weights sum to 0, is left out.
    pub fn of(layer: &LayerData, tokens: Range<usize>) -> Option<Self> {
        let mut saliency = Self::new(layer.experts);
        saliency.add(layer, tokens)?;
        Some(saliency)
    }

    /// Adds tokens of a layer; `None` as for [`Saliency::of`].
    pub fn add(&mut self, layer: &LayerData, tokens: Range<usize>) -> Option<()> {
        let (weights, norms) = (layer.weights.as_ref()?, layer.output_norms.as_ref()?);
        for token in tokens {
            let places = token * layer.top_k..(token + 1) * layer.top_k;
            let selected = layer.ids[places.clone()]
                .iter()
                .zip(&weights[places.clone()])
                .zip(&norms[places])
                .map(|((&id, &weight), &norm)| {
                    (usize::from(id), f64::from(weight), f64::from(norm))
                })
                .filter(|(id, ..)| *id < layer.experts);
            let total: f64 = selected.clone().map(|(_, weight, _)| weight).sum();
            let whole = selected.clone().all(|(_, weight, norm)| (weight + norm).is_finite());
            if !whole || total <= 0.0 {
                continue;
            }
            for (id, weight, norm) in selected {
                self.selections[id] += 1.0;
                self.norms[id] += norm;
                let weighted = weight / total * norm;
                self.weighted[id] += weighted;
                self.squares += weighted * weighted;
            }
        }
        Some(())
    }

    /// REAP saliency, `[E]`; 0 for an expert that was never selected.
    pub fn reap(&self) -> Vec<f64> {
        let mean = |(sum, count): (&f64, &f64)| if *count > 0.0 { sum / count } else { 0.0 };
        self.weighted.iter().zip(&self.selections).map(mean).collect()
    }

    /// Experts by REAP saliency, least first; of equal ones the less used, then the lower.
    pub fn least_salient(&self) -> Vec<usize> {
        let reap = self.reap();
        let mut order: Vec<usize> = (0..reap.len()).collect();
        order.sort_by(|&a, &b| {
            let used = || self.selections[a].total_cmp(&self.selections[b]);
            reap[a].total_cmp(&reap[b]).then_with(used)
        });
        order
    }
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
