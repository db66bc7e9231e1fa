//! How differently two models expect the same text.

use super::pair::Pair;
use super::{ComparisonMetric, Part, Refusal};
use crate::metric::Need;
use crate::ratio::RatioSums;
use crate::row::MetricRow;

/// Rows: all tokens; phase; domain. Interval: bootstrap over sequences.
pub(super) const LOGPROB_DIFFERENCE: ComparisonMetric = ComparisonMetric {
    name: "logprob_difference",
    title: "Difference of log-probabilities",
    unit: "nats",
    formula: "mean over tokens of |ln p_b - ln p_a|, p the probability of the token given those before it",
    chance: "",
    source: "Mean absolute difference: what changes for better and for worse does not cancel",
    part: Part::Logprobs,
    token_wise: true,
    needs: &[Need::Logprobs],
    of_each: None,
    compute: |pair| rows(pair, &LOGPROB_DIFFERENCE, f64::abs, (0.0, f64::MAX)),
};

/// Rows: all tokens; phase; domain. Interval: bootstrap over sequences.
pub(super) const LOGPROB_CHANGE: ComparisonMetric = ComparisonMetric {
    name: "logprob_change",
    title: "Change of log-probabilities",
    unit: "nats",
    formula: "mean over tokens of ln p_b - ln p_a; above 0 the other run expects the text more",
    chance: "",
    source: "Difference of the cross-entropies: its exponential is the ratio of the perplexities, a over b",
    part: Part::Logprobs,
    token_wise: true,
    needs: &[Need::Logprobs],
    of_each: None,
    compute: |pair| rows(pair, &LOGPROB_CHANGE, |change| change, (f64::MIN, f64::MAX)),
};

fn rows(
    pair: &Pair<'_>,
    metric: &ComparisonMetric,
    of: fn(f64) -> f64,
    bounds: (f64, f64),
) -> Result<Vec<MetricRow>, Refusal> {
    let study = pair.base;
    let [x, y] = [study, pair.other].map(|study| study.data.tokens.logprob.as_deref());
    let (Some(x), Some(y)) = (x, y) else {
        return Err(Refusal::NoLogprobs);
    };
    let mut sums = RatioSums::new(study.groups.len());
    for span in pair.spans()? {
        let group = study.groups.of_sequence(span.sequence);
        for at in 0..span.tokens {
            let change = f64::from(y[span.other + at]) - f64::from(x[span.base + at]);
            // NaN where one has none, such as the first token of a sequence.
            if change.is_finite() {
                sums.add(group, study.data.tokens.phase[span.base + at], of(change), 1.0);
            }
        }
    }
    let of_scope = |scope| {
        let (value, interval) = sums.ratio(scope, bounds)?;
        Some(MetricRow { value, interval, ..pair.row(metric, scope) })
    };
    Ok(study.scopes().iter().filter_map(of_scope).collect())
}
