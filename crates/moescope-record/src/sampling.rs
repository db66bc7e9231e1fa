//! Choosing the next token from logits.

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// How tokens are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Keeps the k most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of tokens with at least this probability; 1 keeps all.
    pub top_p: f32,
}

impl Sampling {
    /// Always the most probable token.
    pub const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0 };

    /// Whether no randomness is involved.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }
}

/// A sampler with its own generator: the same seed gives the same tokens for the same logits.
pub struct Sampler {
    sampling: Sampling,
    rng: StdRng,
}

impl Sampler {
    /// A sampler for one sequence. Sequences of one seed draw independently.
    pub fn new(sampling: Sampling, seed: u64, sequence: u32) -> Self {
        let seed = seed ^ u64::from(sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Sampler { sampling, rng: StdRng::seed_from_u64(seed) }
    }

    /// The next token under a row of logits.
    pub fn sample(&mut self, logits: &[f32]) -> u32 {
        if self.sampling.is_greedy() {
            return argmax(logits);
        }
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let by_logit =
            |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if self.sampling.top_k > 0 && self.sampling.top_k < order.len() {
            order.select_nth_unstable_by(self.sampling.top_k - 1, by_logit);
            order.truncate(self.sampling.top_k);
        }
        order.sort_unstable_by(by_logit);
        let max = logits[order[0] as usize];
        let weight =
            |id: &u32| f64::from((logits[*id as usize] - max) / self.sampling.temperature).exp();
        let mut weights: Vec<f64> = order.iter().map(weight).collect();
        let total: f64 = weights.iter().sum();
        let mut kept = 0.0;
        let enough = |w: &f64| {
            kept += w / total;
            kept >= f64::from(self.sampling.top_p)
        };
        if self.sampling.top_p < 1.0
            && let Some(last) = weights.iter().position(enough)
        {
            weights.truncate(last + 1);
        }
        let mut draw = self.rng.random::<f64>() * weights.iter().sum::<f64>();
        for (id, weight) in order.iter().zip(&weights) {
            draw -= weight;
            if draw < 0.0 {
                return *id;
            }
        }
        order[weights.len() - 1]
    }
}

/// Index of the largest element, the first of equals.
pub fn argmax(row: &[f32]) -> u32 {
    let mut best = 0;
    for (i, x) in row.iter().enumerate() {
        if *x > row[best] {
            best = i;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(sampling: Sampling, seed: u64, n: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling, seed, 0);
        (0..n).map(|_| sampler.sample(&[1.0, 3.0, 2.0, 0.0])).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        assert_eq!(draw(Sampling::GREEDY, 0, 1), [1]);
        assert_eq!(argmax(&[1.0, 5.0, 5.0]), 1);
    }

    #[test]
    fn a_seed_fixes_the_draws() {
        let all = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 };
        assert_eq!(draw(all, 7, 50), draw(all, 7, 50));
        assert_ne!(draw(all, 7, 50), draw(all, 8, 50));
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let all = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 };
        let draws = draw(all, 1, 20_000);
        let total: f64 = [1f64, 3.0, 2.0, 0.0].iter().map(|x| x.exp()).sum();
        for (id, logit) in [1f64, 3.0, 2.0, 0.0].iter().enumerate() {
            let share = draws.iter().filter(|d| **d == id as u32).count() as f64 / 20_000.0;
            assert!((share - logit.exp() / total).abs() < 0.015, "{id}: {share}");
        }
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let top_k = Sampling { temperature: 5.0, top_k: 2, top_p: 1.0 };
        assert!(draw(top_k, 3, 500).iter().all(|id| [1, 2].contains(id)));
        // The largest has 0.64 of the mass, the two largest 0.88.
        let top_p = Sampling { temperature: 1.0, top_k: 0, top_p: 0.6 };
        assert!(draw(top_p, 3, 500).iter().all(|id| *id == 1));
        let top_p = Sampling { temperature: 1.0, top_k: 0, top_p: 0.8 };
        let draws = draw(top_p, 3, 500);
        assert!(draws.contains(&2) && draws.iter().all(|id| [1, 2].contains(id)));
    }
}
