//! Bringing the experts of the next layer while this one computes.
//!
//! What is known is S_l, the experts of a token at layer l. Experts f of the next MoE layer are
//! ranked by the sum over e in S_l of P(f given e), counted on other sequences; the p first are
//! brought. All p come from one pass: an expert that is needed is hit by every p above its place in
//! the ranking.

use crate::data::LayerData;

/// How often experts of a layer go with experts of the next one.
#[derive(Clone, Debug)]
pub struct Transitions {
    /// E of the later layer.
    to: usize,
    /// P(f given e), `[E, E']`.
    shares: Vec<f32>,
}

impl Transitions {
    /// Counts the tokens `tokens` of two layers.
    pub fn learn(
        from: &LayerData,
        to: &LayerData,
        tokens: impl IntoIterator<Item = usize>,
    ) -> Self {
        let mut counts = vec![0u32; from.experts * to.experts];
        let mut times = vec![0u32; from.experts];
        for token in tokens {
            for e in selected(from, token) {
                times[e] += 1;
                let row = &mut counts[e * to.experts..(e + 1) * to.experts];
                selected(to, token).for_each(|f| row[f] += 1);
            }
        }
        let share =
            |(at, &count): (usize, &u32)| count as f32 / times[at / to.experts].max(1) as f32;
        Self { to: to.experts, shares: counts.iter().enumerate().map(share).collect() }
    }

    /// Ranks the experts of the next layer for each of `tokens`; `each` gets a token and, for each
    /// expert it needs there, how many are ranked before it: a prefetch of p experts has it if
    /// that is below p. Of equal ones the lower expert is first.
    pub fn rank(
        &self,
        from: &LayerData,
        to: &LayerData,
        tokens: impl IntoIterator<Item = usize>,
        mut each: impl FnMut(usize, &[u32]),
    ) {
        let mut scores = vec![0.0f32; self.to];
        let mut places = Vec::new();
        for token in tokens {
            scores.fill(0.0);
            for e in selected(from, token) {
                let row = &self.shares[e * self.to..][..self.to];
                for (score, share) in scores.iter_mut().zip(row) {
                    *score += share;
                }
            }
            places.clear();
            places.extend(selected(to, token).map(|f| {
                let (before, after) = scores.split_at(f);
                let least = scores[f];
                let ahead = before.iter().map(|&score| u32::from(score >= least)).sum::<u32>();
                ahead + after.iter().map(|&score| u32::from(score > least)).sum::<u32>()
            }));
            each(token, &places);
        }
    }
}

/// Experts a token selected.
#[inline]
fn selected(layer: &LayerData, token: usize) -> impl Iterator<Item = usize> + '_ {
    let ids = layer.experts_of(token).iter().map(|&id| usize::from(id));
    ids.filter(|id| *id < layer.experts)
}
