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

/// Runs under uniform routing, for what cannot be written down: means over simulated sequences from a fixed
/// seed.
#[derive(Clone, Debug)]
pub struct UniformRuns<'a> {
    /// E and k by layer.
    shapes: &'a [(usize, usize)],
    /// Tokens before those that count and tokens that count, by sequence, shortest first.
    lengths: Vec<(usize, usize)>,
    /// Selections to simulate.
    selections: usize,
}

/// Selections of a whole run: enough for a standard error of a hit rate below a thousandth.
const SELECTIONS: usize = 1 << 19;

/// Selections of one domain of many, whose intervals are wider.
const SELECTIONS_OF_PART: usize = 1 << 16;

/// Selections of one sequence, so that a very long one does not take longer than the run itself.
const LONGEST: usize = 1 << 20;

impl<'a> UniformRuns<'a> {
    /// Of layers with these (E, k), in sequences with so many tokens before those that count (a prompt that
    /// fills a cache) and so many that count. Sequences in which none counts are left out.
    pub fn new(shapes: &'a [(usize, usize)], lengths: &[(usize, usize)]) -> Self {
        let counted = lengths.iter().copied().filter(|(_, counted)| *counted > 0);
        let mut lengths: Vec<(usize, usize)> = counted.collect();
        lengths.sort_unstable_by_key(|(before, counted)| (before + counted, *counted));
        Self { shapes, lengths, selections: SELECTIONS }
    }

    /// Fewer of them, where `part`: for one of several parts of a run.
    pub fn of_part(self, part: bool) -> Self {
        Self { selections: if part { SELECTIONS_OF_PART } else { SELECTIONS }, ..self }
    }

    /// Share of hits of [`Belady`] with a loaded cache of the first layer by size, `[E]`: knowing the future
    /// helps even here.
    pub fn belady(&self) -> Vec<f64> {
        let mut hits = Hits::new(self.shapes.first().map_or(0, |(experts, _)| *experts), 1);
        let mut belady = Belady::new();
        self.each(|layers, before| {
            let requests = LayerRequests::of(&layers[0], 0..tokens(layers));
            belady.run(&Future::of(&requests), Start::Loaded, |at, depths| {
                if at >= before {
                    hits.add(depths);
                }
            });
        });
        shares(&hits)
    }

    /// Share of hits of [`Lru`] in one cache of all layers, by multiples of `step` experts, `[sizes]`.
    ///
    /// The layers take turns, so what was used last is what is not needed next: a small cache hits less
    /// than its share of the experts even here.
    pub fn shared_lru(&self, sizes: usize, step: usize) -> Vec<f64> {
        let mut lru = Lru::new(self.experts());
        let mut hits = Hits::new(sizes, step);
        self.each(|layers, before| {
            lru.run(&ModelRequests::of(layers, 0..tokens(layers)), |at, depths| {
                if at >= before * layers.len() {
                    hits.add(depths);
                }
            });
        });
        shares(&hits)
    }

    /// As [`UniformRuns::shared_lru`], of [`Lfu`].
    pub fn shared_lfu(&self, sizes: usize, step: usize) -> Vec<f64> {
        let mut lfu = Lfu::new(self.experts());
        let mut hits = Hits::new(sizes, step);
        self.each(|layers, before| {
            lfu.run(&ModelRequests::of(layers, 0..tokens(layers)), |at, depths| {
                if at >= before * layers.len() {
                    hits.add(depths);
                }
            });
        });
        shares(&hits)
    }

    /// Share of hits of [`belady_hits`] with a loaded cache of all layers, over all tokens, by multiples of
    /// `step` experts, `[sizes]`.
    pub fn shared_belady(&self, sizes: usize, step: usize) -> Vec<f64> {
        let keys: Vec<usize> = (1..=sizes).map(|size| size * step).collect();
        let (mut hits, mut uses) = (vec![0u64; sizes], 0);
        self.each(|layers, _| {
            let future = Future::of(&ModelRequests::of(layers, 0..tokens(layers)));
            uses += future.uses();
            for (sum, hits) in hits.iter_mut().zip(belady_hits(&future, Start::Loaded, &keys)) {
                *sum += hits;
            }
        });
        hits.into_iter().map(|hits| hits as f64 / uses.max(1) as f64).collect()
    }

    fn experts(&self) -> usize {
        self.shapes.iter().map(|(experts, _)| experts).sum()
    }

    /// Calls `each` with uniform sequences by layer and how many of their tokens do not count. The lengths
    /// follow those given: up to 16 of them, evenly spread over their order.
    fn each(&self, mut each: impl FnMut(&[LayerData], usize)) {
        const LENGTHS: usize = 16;
        let per_token: usize = self.shapes.iter().map(|&(experts, top_k)| top_k.min(experts)).sum();
        if per_token == 0 || self.lengths.is_empty() {
            return;
        }
        let limit = (LONGEST / per_token).max(1);
        let limited = |&(before, counted): &(usize, usize)| {
            // Where both do not fit, either is long enough to forget how it began.
            let counted = counted.min(if before == 0 { limit } else { limit.div_ceil(2) });
            (before.min(limit - counted), counted)
        };
        let lengths: Vec<(usize, usize)> = self.lengths.iter().map(limited).collect();
        let total: usize = lengths.iter().map(|(before, counted)| before + counted).sum();
        // As many of them as one round has room for.
        let mean = (total * per_token / lengths.len()).max(1);
        let count = (self.selections / mean).clamp(1, LENGTHS).min(lengths.len());
        let mut rng = Rng::new(0x6d6f_6573_636f_7065);
        let mut decks: Vec<Vec<u16>> =
            self.shapes.iter().map(|&(experts, _)| (0..experts as u16).collect()).collect();
        let mut selections = 0;
        while selections < self.selections {
            for at in 0..count {
                let (before, counted) = lengths[(2 * at + 1) * lengths.len() / (2 * count)];
                let tokens = before + counted;
                let layers: Vec<LayerData> = std::iter::zip(self.shapes, &mut decks)
                    .map(|(&shape, deck)| uniform_layer(shape, tokens, deck, &mut rng))
                    .collect();
                each(&layers, before);
                selections += tokens * per_token;
            }
        }
    }
}

/// One layer of a sequence; `deck` holds the experts in any order.
fn uniform_layer(
    (experts, top_k): (usize, usize),
    tokens: usize,
    deck: &mut [u16],
    rng: &mut Rng,
) -> LayerData {
    let top_k = top_k.min(experts);
    let mut ids = Vec::with_capacity(tokens * top_k);
    for _ in 0..tokens {
        for place in 0..top_k {
            deck.swap(place, place + rng.below(experts - place));
        }
        ids.extend_from_slice(&deck[..top_k]);
    }
    LayerData::from_ids(0, experts, top_k, ids)
}

/// Tokens of layers that are as long as each other.
fn tokens(layers: &[LayerData]) -> usize {
    layers.iter().filter_map(|layer| layer.ids.len().checked_div(layer.top_k)).max().unwrap_or(0)
}

/// Hits of all lookups, by size.
fn shares(hits: &Hits) -> Vec<f64> {
    let requests = hits.requests().max(1) as f64;
    hits.curve().into_iter().map(|hits| hits as f64 / requests).collect()
}
