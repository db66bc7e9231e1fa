//! Balance statistics, and what uniform routing would give for them.

use crate::rng::Rng;

/// Statistics of how evenly selections fall on the experts of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Balance {
    /// max_e c_e / c̄, at least 1.
    pub imbalance: f64,
    /// std(c_e) / c̄ (population standard deviation).
    pub variation: f64,
    /// Gini coefficient, in [0, 1).
    pub gini: f64,
    /// Entropy of p_e over ln E, in [0, 1]; 1 for a single expert.
    pub normalised_entropy: f64,
    /// exp(entropy of p_e), in [1, E].
    pub effective_experts: f64,
}

impl Balance {
    /// Statistics of counts `[E]`; `None` where nothing was selected. `counts` is left sorted.
    pub fn of(counts: &mut [f64]) -> Option<Self> {
        let experts = counts.len() as f64;
        let total: f64 = counts.iter().sum();
        if total <= 0.0 {
            return None;
        }
        counts.sort_unstable_by(f64::total_cmp);
        let mean = total / experts;
        let (mut squares, mut ranked, mut entropy) = (0.0, 0.0, 0.0);
        for (rank, &count) in (1..).zip(counts.iter()) {
            squares += (count - mean) * (count - mean);
            ranked += f64::from(rank) * count;
            if count > 0.0 {
                entropy -= count * count.ln();
            }
        }
        let entropy = (entropy / total + total.ln()).max(0.0);
        let max = counts.last().copied().unwrap_or_default();
        Some(Self {
            imbalance: max / mean,
            variation: (squares / experts).sqrt() / mean,
            // The double sum of the definition, over sorted counts.
            gini: (2.0 * ranked / (experts * total) - (experts + 1.0) / experts).max(0.0),
            normalised_entropy: if counts.len() > 1 {
                (entropy / experts.ln()).min(1.0)
            } else {
                1.0
            },
            effective_experts: entropy.exp().min(experts),
        })
    }
}

/// Draws behind one expectation: their mean is within about 1 % of the sampling noise.
const DRAWS: usize = 1000;

/// Variance of c_e from which the counts are drawn as normal numbers.
const NORMAL_FROM: f64 = 40.0;

/// Expected statistics when each of `tokens` tokens takes `top_k` distinct ones of `experts`
/// experts, all sets equally likely. For k = 1 that is the multinomial distribution.
///
/// The expectation has no closed form (of a maximum, above all), so it is the mean over 1000
/// draws from a fixed seed: the same on every machine. Few tokens are drawn one by one; for many,
/// the counts are drawn from the normal distribution with their exact covariance,
/// `T p (1-p)` and `-T p (1-p) / (E-1)` for p = k/E.
///
/// `None` where there is nothing to expect: no expert, no token, k = 0 or k > E.
pub fn uniform_balance(experts: usize, top_k: usize, tokens: u64) -> Option<Balance> {
    if experts == 0 || top_k == 0 || top_k > experts || tokens == 0 {
        return None;
    }
    let share = top_k as f64 / experts as f64;
    let variance = tokens as f64 * share * (1.0 - share);
    let mut rng = Rng::new(0x6d6f_6573_636f_7065);
    let mut deck: Vec<usize> = (0..experts).collect();
    let mut counts = vec![0.0; experts];
    let mut sum = [0.0; 5];
    let draws = if top_k == experts { 1 } else { DRAWS };
    for _ in 0..draws {
        if variance >= NORMAL_FROM {
            draw_normal(&mut rng, tokens as f64 * share, variance, &mut counts);
        } else {
            counts.fill(0.0);
            for _ in 0..tokens {
                // The first k of a shuffle; any order of the deck is as good a start.
                for place in 0..top_k {
                    deck.swap(place, place + rng.below(experts - place));
                    counts[deck[place]] += 1.0;
                }
            }
        }
        let drawn = Balance::of(&mut counts)?;
        let values = [
            drawn.imbalance,
            drawn.variation,
            drawn.gini,
            drawn.normalised_entropy,
            drawn.effective_experts,
        ];
        for (sum, value) in sum.iter_mut().zip(values) {
            *sum += value;
        }
    }
    let [imbalance, variation, gini, normalised_entropy, effective_experts] =
        sum.map(|sum| sum / draws as f64);
    Some(Balance { imbalance, variation, gini, normalised_entropy, effective_experts })
}

/// Counts with mean `mean`, variance `variance` each, and a fixed sum.
fn draw_normal(rng: &mut Rng, mean: f64, variance: f64, counts: &mut [f64]) {
    let experts = counts.len() as f64;
    counts.fill_with(|| rng.normal());
    let centre = counts.iter().sum::<f64>() / experts;
    // Taking the mean off lowers the variance by (E-1)/E.
    let scale = (variance * experts / (experts - 1.0)).sqrt();
    for count in counts {
        *count = (mean + scale * (*count - centre)).max(0.0);
    }
}
