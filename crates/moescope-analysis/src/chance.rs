//! Balance statistics, and what uniform routing would give for them.

use std::collections::HashMap;
use std::sync::Arc;

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

/// Expected number of distinct experts that n tokens select: `E (1 - (1 - k/E)^n)`.
pub fn expected_distinct(experts: usize, top_k: usize, tokens: f64) -> f64 {
    let experts = experts as f64;
    experts * (1.0 - (1.0 - top_k as f64 / experts).powf(tokens))
}

/// Mean absolute deviation of a Poisson number from its mean: `2 e^-m m^(n+1) / n!`, n the whole part of
/// m.
pub(crate) fn poisson_deviation(mean: f64) -> f64 {
    if mean <= 0.0 {
        return 0.0;
    }
    let whole = mean.floor();
    2.0 * ((whole + 1.0) * mean.ln() - mean - ln_factorial(whole)).exp()
}

/// ln n!, by Stirling's series from 10 on (error below 1e-9).
pub(crate) fn ln_factorial(n: f64) -> f64 {
    if n < 10.0 {
        return (2..=n as u32).map(|factor| f64::from(factor).ln()).sum();
    }
    let (x, square) = (n + 0.5, n * n);
    x * n.ln() - n
        + 0.5 * std::f64::consts::TAU.ln()
        + (1.0 - (1.0 - 2.0 / (7.0 * square)) / (30.0 * square)) / (12.0 * n)
}

/// Expected largest of the E counts that n tokens give.
///
/// Up to 64 tokens it is the mean over 40,000 runs of that many tokens, drawn one by one (standard
/// error below 0.005 counts). For more, the counts are taken as independent binomial numbers, whose
/// largest is summed exactly, and its distance from the mean is widened by `sqrt(E / (E-1))` for their
/// sum being fixed: within 0.2 % there.
pub(crate) struct ExpectedMaximum {
    experts: usize,
    top_k: usize,
    /// By number of tokens, from 0: [`drawn_maxima`].
    drawn: Arc<[f64]>,
    computed: HashMap<u32, f64>,
}

/// Tokens up to which counts are drawn.
const DRAWN_TOKENS: usize = 64;

/// Runs of that many tokens.
const RUNS: usize = 40_000;

impl ExpectedMaximum {
    /// Prepares the numbers of tokens in `sizes`; others are computed when asked for. `drawn` are the
    /// [`drawn_maxima`] of the same experts.
    pub(crate) fn new(
        experts: usize,
        top_k: usize,
        drawn: Arc<[f64]>,
        sizes: impl Iterator<Item = u32>,
    ) -> Self {
        let top_k = top_k.min(experts);
        let mut expected = Self { experts, top_k, drawn, computed: HashMap::new() };
        for size in sizes {
            if size as usize > DRAWN_TOKENS && !expected.computed.contains_key(&size) {
                let maximum = expected.compute(size);
                expected.computed.insert(size, maximum);
            }
        }
        expected
    }

    /// For n tokens.
    pub(crate) fn of(&self, tokens: u32) -> f64 {
        match self.drawn.get(tokens as usize) {
            Some(drawn) => *drawn,
            None => self.computed.get(&tokens).copied().unwrap_or_else(|| self.compute(tokens)),
        }
    }

    fn compute(&self, tokens: u32) -> f64 {
        let (n, experts) = (f64::from(tokens), self.experts as f64);
        let p = self.top_k as f64 / experts;
        if self.top_k == 0 || self.top_k >= self.experts {
            return n * p;
        }
        // sum over m of P(max > m) = 1 - F(m)^E; far below the mean it is 1.
        let mean = n * p;
        let first = (mean - 12.0 * (mean * (1.0 - p)).sqrt()).max(0.0).floor();
        let choose = ln_factorial(n) - ln_factorial(first) - ln_factorial(n - first);
        let mut chance = (choose + first * p.ln() + (n - first) * (1.0 - p).ln()).exp();
        let (mut below, mut sum, mut m) = (0.0f64, first, first);
        while m < n {
            below += chance;
            let above = 1.0 - below.min(1.0).powf(experts);
            sum += above;
            if m > mean && above < 1e-12 {
                break;
            }
            chance *= (n - m) / (m + 1.0) * p / (1.0 - p);
            m += 1.0;
        }
        mean + (sum - mean) * (experts / (experts - 1.0)).sqrt()
    }
}

/// Expected largest of the E counts that n tokens give, for n up to 64, from 0: see [`ExpectedMaximum`].
pub(crate) fn drawn_maxima(experts: usize, top_k: usize) -> Vec<f64> {
    let top_k = top_k.min(experts);
    let mut maxima = vec![0u64; DRAWN_TOKENS + 1];
    let mut rng = Rng::new(0x6d_6178_696d_756d);
    let mut deck: Vec<usize> = (0..experts).collect();
    let mut counts = vec![0u32; experts];
    for _ in 0..RUNS {
        counts.fill(0);
        let mut most = 0;
        for maximum in &mut maxima[1..] {
            for place in 0..top_k {
                deck.swap(place, place + rng.below(experts - place));
                counts[deck[place]] += 1;
                most = most.max(counts[deck[place]]);
            }
            *maximum += u64::from(most);
        }
    }
    maxima.iter().map(|&sum| sum as f64 / RUNS as f64).collect()
}

/// Number of sets of k out of E.
pub(crate) fn sets(experts: usize, top_k: usize) -> f64 {
    (0..top_k.min(experts)).map(|place| (experts - place) as f64 / (place + 1) as f64).product()
}

/// Expected mutual information, in nats, that a table of counts shows between two independent
/// variables with these row and column sums.
///
/// With fixed sums only `sum_ij n_ij ln n_ij` varies, and each count is hypergeometric: `E[n ln n]` is
/// summed exactly where the count is small (as in Vinh, Epps and Bailey, "Information theoretic
/// measures for clusterings comparison", 2010). Where it is large, `E[n ln n] - m ln m` tends to
/// `(1 - r/T) (1 - c/T) / 2`, which over all cells is the bias of Miller (1955), (E-1)(E'-1) / (2T).
pub(crate) fn independent_information(rows: &[f64], columns: &[f64]) -> f64 {
    let total: f64 = rows.iter().sum();
    if total <= 1.0 {
        return 0.0;
    }
    let used = |sums: &[f64]| -> Vec<f64> { sums.iter().copied().filter(|&n| n > 0.0).collect() };
    let columns = used(columns);
    let sum: f64 = used(rows)
        .iter()
        .flat_map(|&row| columns.iter().map(move |&column| excess(row, column, total)))
        .sum();
    (sum / total).max(0.0)
}

/// Mean of a count above which its logarithm is as good as its series.
const SERIES_FROM: f64 = 20.0;

/// `E[n ln n] - m ln m` for a hypergeometric n: `row` of `total` marked, `column` drawn, mean m.
fn excess(row: f64, column: f64, total: f64) -> f64 {
    let mean = row * column / total;
    if mean > SERIES_FROM {
        let spread = (1.0 - row / total) * (1.0 - column / total) * total / (total - 1.0);
        return spread * (0.5 + (1.0 + 1.0 / mean) / (12.0 * mean));
    }
    let choose = |n: f64, k: f64| ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
    let mut n = (row + column - total).max(0.0);
    let most = row.min(column);
    let mut chance =
        (choose(row, n) + choose(total - row, column - n) - choose(total, column)).exp();
    let mut sum = 0.0;
    while n <= most {
        if n > 1.0 {
            sum += chance * n * n.ln();
        }
        // Beyond the mean each term is smaller than the one before.
        if n > mean && chance < 1e-15 {
            break;
        }
        chance *= (row - n) * (column - n) / ((n + 1.0) * (total - row - column + n + 1.0));
        n += 1.0;
    }
    sum - mean * mean.ln()
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
    let mut uniform = UniformCounts::new(experts, top_k).filter(|_| tokens > 0)?;
    let mut counts = vec![0.0; experts];
    let mut sum = [0.0; 5];
    let draws = if top_k == experts { 1 } else { DRAWS };
    for _ in 0..draws {
        uniform.draw(tokens, &mut counts);
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

/// Draws of the counts c_e under uniform routing, each from where the one before left the generator.
pub(crate) struct UniformCounts {
    top_k: usize,
    pub(crate) rng: Rng,
    /// The experts in some order.
    deck: Vec<usize>,
}

impl UniformCounts {
    /// `None` where there is nothing to draw: no expert, k = 0 or k > E.
    pub(crate) fn new(experts: usize, top_k: usize) -> Option<Self> {
        (top_k > 0 && top_k <= experts).then(|| Self {
            top_k,
            rng: Rng::new(0x6d6f_6573_636f_7065),
            deck: (0..experts).collect(),
        })
    }

    /// Counts of `tokens` tokens, `[E]`: see [`uniform_balance`].
    pub(crate) fn draw(&mut self, tokens: u64, counts: &mut [f64]) {
        let share = self.top_k as f64 / self.deck.len() as f64;
        let variance = tokens as f64 * share * (1.0 - share);
        if variance >= NORMAL_FROM {
            return draw_normal(&mut self.rng, tokens as f64 * share, variance, counts);
        }
        counts.fill(0.0);
        for _ in 0..tokens {
            // The first k of a shuffle; any order of the deck is as good a start.
            for place in 0..self.top_k {
                let other = place + self.rng.below(self.deck.len() - place);
                self.deck.swap(place, other);
                counts[self.deck[place]] += 1.0;
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn information_of_independent_variables() {
        // Two tokens, each value once: one table of two is drawn, and both show ln 2.
        let two = independent_information(&[1.0, 1.0], &[1.0, 1.0]);
        assert!((two - 2f64.ln()).abs() < 1e-12, "{two}");
        // Four tokens: the first cell is 0, 1, 2 with chance 1/6, 4/6, 1/6, and 1 shows nothing.
        let four = independent_information(&[2.0, 2.0], &[2.0, 2.0]);
        assert!((four - 2f64.ln() / 3.0).abs() < 1e-12, "{four}");
        // Many tokens: the bias of Miller.
        let many = independent_information(&[5e4; 16], &[2e5; 4]);
        assert!((many / (15.0 * 3.0 / (2.0 * 8e5)) - 1.0).abs() < 1e-4, "{many}");
        // The two ways meet, within what is left out of the series.
        let (below, above) = (excess(400.0, 49.9, 1000.0), excess(400.0, 50.1, 1000.0));
        assert!((below / above - 1.0).abs() < 5e-3, "{below} {above}");
        assert_eq!(independent_information(&[1.0], &[1.0]), 0.0);
        assert_eq!(independent_information(&[], &[]), 0.0);
    }

    #[test]
    fn deviation_of_poisson_numbers() {
        // 2 m e^-m below 1; sqrt(2 m / pi) far above.
        assert!((poisson_deviation(0.5) - (-0.5f64).exp()).abs() < 1e-12);
        let far = poisson_deviation(1e4) / (2e4 / std::f64::consts::PI).sqrt();
        assert!((far - 1.0).abs() < 1e-4, "{far}");
        assert_eq!(poisson_deviation(0.0), 0.0);
        assert!((ln_factorial(9.0) - 362_880f64.ln()).abs() < 1e-12);
        assert!((ln_factorial(10.0) - 3_628_800f64.ln()).abs() < 1e-9);
    }

    #[test]
    fn expected_maximum() {
        let prepared = |experts, top_k, sizes: &[u32]| {
            let drawn = drawn_maxima(experts, top_k).into();
            ExpectedMaximum::new(experts, top_k, drawn, sizes.iter().copied())
        };
        let maximum = prepared(2, 1, &[1000]);
        assert_eq!(maximum.of(0), 0.0);
        assert_eq!(maximum.of(1), 1.0);
        // Two tokens of two experts: 2 or 1, equally likely. Ten: 5 + E|c - 5| = 6.2305.
        assert!((maximum.of(2) - 1.5).abs() < 0.01);
        assert!((maximum.of(10) - 6.2305).abs() < 0.02, "{}", maximum.of(10));
        // Many: 500 + sqrt(1000 / (2 pi)).
        assert!((maximum.of(1000) - 512.616).abs() < 0.1, "{}", maximum.of(1000));
        // Drawn and computed meet.
        for (experts, top_k) in [(2, 1), (16, 2), (64, 8), (8, 8)] {
            let maximum = prepared(experts, top_k, &[]);
            let (drawn, computed) = (maximum.of(64), maximum.compute(64));
            assert!(
                (drawn / computed - 1.0).abs() < 0.005,
                "{experts} {top_k}: {drawn} {computed}"
            );
        }
        // A token brings k, all different.
        assert_eq!(prepared(4, 4, &[]).of(7), 7.0);
    }
}
