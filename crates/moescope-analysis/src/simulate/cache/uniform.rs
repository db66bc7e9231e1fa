//! What uniform routing would hit: chance levels.

use super::{Belady, Future, Hits, LayerRequests, Lfu, Lru, ModelRequests, Start, belady_hits};
use crate::data::LayerData;
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

/// Share of hits of [`Belady`] with a loaded cache under uniform routing of sequences of these
/// lengths in tokens, by size, `[E]`: a mean over simulated sequences from a fixed seed, since knowing
/// the future helps by more than can be written down.
pub fn uniform_belady(experts: usize, top_k: usize, lengths: &[usize]) -> Vec<f64> {
    let mut hits = Hits::new(experts, 1);
    let mut belady = Belady::new();
    each_uniform(&[(experts, top_k)], lengths, |layers, tokens| {
        let future = Future::of(&LayerRequests::of(&layers[0], 0..tokens));
        belady.run(&future, Start::Loaded, |_, depths| hits.add(depths));
    });
    shares(&hits)
}

/// Share of hits of [`Lru`] in one cache of all layers under uniform routing, as [`uniform_belady`], by
/// multiples of `step` experts, `[sizes]`.
///
/// The layers take turns, so what was used last is what is not needed next: a small cache hits less
/// than its share of the experts even here.
pub fn uniform_shared_lru(
    layers: &[(usize, usize)],
    lengths: &[usize],
    sizes: usize,
    step: usize,
) -> Vec<f64> {
    let mut lru = Lru::new(layers.iter().map(|(experts, _)| experts).sum());
    let mut hits = Hits::new(sizes, step);
    each_uniform(layers, lengths, |layers, tokens| {
        lru.run(&ModelRequests::of(layers, 0..tokens), |_, depths| hits.add(depths));
    });
    shares(&hits)
}

/// As [`uniform_shared_lru`], of [`Lfu`].
pub fn uniform_shared_lfu(
    layers: &[(usize, usize)],
    lengths: &[usize],
    sizes: usize,
    step: usize,
) -> Vec<f64> {
    let mut lfu = Lfu::new(layers.iter().map(|(experts, _)| experts).sum());
    let mut hits = Hits::new(sizes, step);
    each_uniform(layers, lengths, |layers, tokens| {
        lfu.run(&ModelRequests::of(layers, 0..tokens), |_, depths| hits.add(depths));
    });
    shares(&hits)
}

/// Share of hits of [`belady_hits`] with a loaded cache of all layers under uniform routing, as
/// [`uniform_belady`], for caches of `sizes` experts.
pub fn uniform_shared_belady(
    layers: &[(usize, usize)],
    lengths: &[usize],
    sizes: &[usize],
) -> Vec<f64> {
    let (mut hits, mut uses) = (vec![0u64; sizes.len()], 0);
    each_uniform(layers, lengths, |layers, tokens| {
        let future = Future::of(&ModelRequests::of(layers, 0..tokens));
        uses += future.uses();
        for (sum, hits) in hits.iter_mut().zip(belady_hits(&future, Start::Loaded, sizes)) {
            *sum += hits;
        }
    });
    hits.into_iter().map(|hits| hits as f64 / uses.max(1) as f64).collect()
}

/// Selections to simulate: enough for a standard error of a hit rate below a thousandth.
const SELECTIONS: usize = 1 << 19;

/// Selections of one sequence, so that a very long one does not take longer than the run itself.
const LONGEST: usize = 1 << 20;

/// Calls `each` with uniform sequences of (E, k) by layer, and their numbers of tokens. The lengths
/// follow those given: up to 16 of them, evenly spread over their order.
fn each_uniform(
    shapes: &[(usize, usize)],
    lengths: &[usize],
    mut each: impl FnMut(&[LayerData], usize),
) {
    const LENGTHS: usize = 16;
    let per_token: usize = shapes.iter().map(|&(experts, top_k)| top_k.min(experts)).sum();
    let mut lengths: Vec<usize> = lengths.iter().copied().filter(|&tokens| tokens > 0).collect();
    if per_token == 0 || lengths.is_empty() {
        return;
    }
    lengths.sort_unstable();
    let count = lengths.len().min(LENGTHS);
    let picked: Vec<usize> =
        (0..count).map(|at| lengths[(2 * at + 1) * lengths.len() / (2 * count)]).collect();
    let mut rng = Rng::new(0x6d6f_6573_636f_7065);
    let mut decks: Vec<Vec<u16>> =
        shapes.iter().map(|&(experts, _)| (0..experts as u16).collect()).collect();
    let mut selections = 0;
    while selections < SELECTIONS {
        for &tokens in &picked {
            let tokens = tokens.min((LONGEST / per_token).max(1));
            let layers: Vec<LayerData> = std::iter::zip(shapes, &mut decks)
                .map(|(&(experts, top_k), deck)| {
                    let top_k = top_k.min(experts);
                    let mut ids = Vec::with_capacity(tokens * top_k);
                    for _ in 0..tokens {
                        for place in 0..top_k {
                            deck.swap(place, place + rng.below(experts - place));
                        }
                        ids.extend_from_slice(&deck[..top_k]);
                    }
                    LayerData::from_ids(0, experts, top_k, ids)
                })
                .collect();
            each(&layers, tokens);
            selections += tokens * per_token;
        }
    }
}

/// Hits of all lookups, by size.
fn shares(hits: &Hits) -> Vec<f64> {
    let requests = hits.requests().max(1) as f64;
    hits.curve().into_iter().map(|hits| hits as f64 / requests).collect()
}
