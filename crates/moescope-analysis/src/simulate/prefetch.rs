//! Bringing the experts of the next layer while this one computes.
//!
//! What is known is S_l, the experts of a token at layer l. Experts f of the next MoE layer are
//! ranked by the sum over e in S_l of P(f given e), counted on other sequences; the p first are
//! brought. All p come from one pass: an expert that is needed is hit by every p above its place in
//! the ranking.

use crate::data::LayerData;
use crate::simd::{self, Kernel};

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
            for &e in from.selected(token) {
                let e = usize::from(e);
                times[e] += 1;
                let row = &mut counts[e * to.experts..(e + 1) * to.experts];
                for &f in to.selected(token) {
                    row[usize::from(f)] += 1;
                }
            }
        }
        let share =
            |(at, &count): (usize, &u32)| count as f32 / times[at / to.experts].max(1) as f32;
        Self { to: to.experts, shares: counts.iter().enumerate().map(share).collect() }
    }

    /// Ranks the experts of the next layer for each of `tokens`; `each` gets a token and, for each
    /// expert it needs there, how many are ranked before it: a prefetch of p experts has it if
    /// that is below p. Of equal ones the lower expert is first. Tokens without experts at one of the
    /// layers are left out: there is nothing to foretell, or nothing to foretell it from.
    pub fn rank(
        &self,
        from: &LayerData,
        to: &LayerData,
        tokens: impl IntoIterator<Item = usize>,
        each: impl FnMut(usize, &[u32]),
    ) {
        simd::run(Rank { transitions: self, from, to, tokens: tokens.into_iter(), each });
    }
}

/// [`Transitions::rank`].
struct Rank<'a, T, F> {
    transitions: &'a Transitions,
    from: &'a LayerData,
    to: &'a LayerData,
    tokens: T,
    each: F,
}

impl<T: Iterator<Item = usize>, F: FnMut(usize, &[u32])> Kernel for Rank<'_, T, F> {
    #[inline(always)]
    fn run(self) {
        let Self { transitions, from, to, tokens, mut each } = self;
        let experts = transitions.to;
        let mut scores = vec![0.0f32; experts];
        let mut places = Vec::new();
        for token in tokens {
            let (given, needed) = (from.selected(token), to.selected(token));
            if given.is_empty() || needed.is_empty() {
                continue;
            }
            scores.fill(0.0);
            for &e in given {
                let row = &transitions.shares[usize::from(e) * experts..][..experts];
                for (score, share) in scores.iter_mut().zip(row) {
                    *score += share;
                }
            }
            places.clear();
            for &f in needed {
                let (before, after) = scores.split_at(usize::from(f));
                let least = scores[usize::from(f)];
                let mut ahead = 0u32;
                for &score in before {
                    ahead += u32::from(score >= least);
                }
                for &score in after {
                    ahead += u32::from(score > least);
                }
                places.push(ahead);
            }
            each(token, &places);
        }
    }
}
