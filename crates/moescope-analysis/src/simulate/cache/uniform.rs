//! What uniform routing would hit: chance levels.

use super::{Belady, Future, Hits, LayerRequests, Start};
use crate::rng::Rng;

/// Expected contents of a cache under uniform, independent routing (k distinct ones of E experts,
/// all sets equally likely), which begins empty.
///
/// What is requested next does not depend on what is held, so any policy hits with probability
/// (experts held) / E, and any policy that keeps what it can holds min(m, D_t) experts after t
/// tokens, D_t distinct ones of them. D_t is a Markov chain with hypergeometric steps.
#[derive(Clone, Debug)]
pub struct ColdStart {
    experts: usize,
    /// Sum over the first t tokens of the expected number held before each, `[t, E]` for m = 1..E.
    sums: Vec<f64>,
}

impl ColdStart {
    /// Expectations for up to `tokens` tokens.
    pub fn new(experts: usize, top_k: usize, tokens: usize) -> Self {
        /// Probability of an expert that was never used, below which there is none.
        const NEGLIGIBLE: f64 = 1e-12;
        let top_k = top_k.min(experts);
        let log_factorial: Vec<f64> = std::iter::once(0.0)
            .chain((1..=experts).scan(0.0, |sum, n| {
                *sum += (n as f64).ln();
                Some(*sum)
            }))
            .collect();
        let choose =
            |n: usize, r: usize| log_factorial[n] - log_factorial[r] - log_factorial[n - r];
        // steps[d][j]: probability that a request after d distinct experts brings j new ones.
        let steps: Vec<Vec<f64>> = (0..=experts)
            .map(|seen| {
                (0..=top_k)
                    .map(|new| match (new <= experts - seen, top_k - new <= seen) {
                        (true, true) => (choose(experts - seen, new) + choose(seen, top_k - new)
                            - choose(experts, top_k))
                        .exp(),
                        _ => 0.0,
                    })
                    .collect()
            })
            .collect();
        let mut distinct = vec![0.0; experts + 1];
        distinct[0] = 1.0;
        let mut sums = vec![0.0; experts];
        let mut after = vec![0.0; experts + 1];
        for token in 0..tokens {
            if distinct[experts] > 1.0 - NEGLIGIBLE {
                break;
            }
            // E[min(m, D)] is the sum over n = 1..m of P(D >= n).
            let mut at_least = 1.0;
            let mut held = 0.0;
            for size in 0..experts {
                at_least -= distinct[size];
                held += f64::max(at_least, 0.0);
                sums.push(sums[token * experts + size] + held);
            }
            after.fill(0.0);
            for (seen, &probability) in distinct.iter().enumerate().filter(|(_, p)| **p > 0.0) {
                for (new, step) in steps[seen].iter().enumerate().take(experts - seen + 1) {
                    after[seen + new] += probability * step;
                }
            }
            std::mem::swap(&mut distinct, &mut after);
        }
        Self { experts, sums }
    }

    /// Expected number of experts that a cache of `size` holds, summed over the first `tokens` tokens
    /// (before each of them).
    pub fn held(&self, size: usize, tokens: usize) -> f64 {
        if size == 0 || self.experts == 0 {
            return 0.0;
        }
        let size = size.min(self.experts);
        let known = (self.sums.len() / self.experts - 1).min(tokens);
        // Behind what is known every expert was seen.
        self.sums[known * self.experts + size - 1] + ((tokens - known) * size) as f64
    }
}

/// Share of hits of [`Belady`] with a loaded cache under uniform routing of sequences of `tokens`
/// tokens, by size, `[E]`: a mean over simulated sequences from a fixed seed, since knowing the
/// future helps by more than can be written down.
pub fn uniform_belady(experts: usize, top_k: usize, tokens: usize) -> Vec<f64> {
    /// Selections to simulate: enough for a standard error below half a percent.
    const SELECTIONS: usize = 40_000;
    let top_k = top_k.min(experts);
    let per_sequence = (tokens * top_k).max(1);
    let tokens = tokens.min(SELECTIONS);
    let mut rng = Rng::new(0x6d6f_6573_636f_7065);
    let mut deck: Vec<u16> = (0..experts as u16).collect();
    let mut hits = Hits::new(experts, 1);
    let mut belady = Belady::new();
    for _ in 0..SELECTIONS.div_ceil(per_sequence) {
        let mut ids = Vec::with_capacity(tokens * top_k);
        for _ in 0..tokens {
            for place in 0..top_k {
                deck.swap(place, place + rng.below(experts - place));
            }
            ids.extend_from_slice(&deck[..top_k]);
        }
        let future = Future::of(&LayerRequests::new(&ids, top_k, experts));
        belady.run(&future, Start::Loaded, |_, depths| hits.add(depths));
    }
    let requests = hits.requests().max(1) as f64;
    hits.curve().into_iter().map(|hits| hits as f64 / requests).collect()
}
