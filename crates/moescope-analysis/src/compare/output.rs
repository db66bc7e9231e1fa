//! Whether two models say the same: generated tokens and log-probabilities.

use moescope_trace::Phase;

use super::Refusal;
use super::tokens::{Span, prompt_of};
use crate::data::RunData;
use crate::metric::Need;
use crate::ratio::RatioSums;
use crate::row::MetricRow;
use crate::study::Study;

/// Rows of `equal_tokens`: of the tokens that the longer of two generations holds, the share before
/// the first that differs.
pub(super) fn equal_tokens(
    study: &Study<'_>,
    other: &RunData,
    spans: &[Span],
) -> Result<Vec<MetricRow>, Refusal> {
    let base = study.data;
    if !base.has(Need::TokenIds) || !other.has(Need::TokenIds) {
        return Err(Refusal::NoTokenIds);
    }
    let greedy = |data: &RunData| data.manifest.settings.sampling.temperature == 0.0;
    if !greedy(base) || !greedy(other) {
        return Err(Refusal::Sampled);
    }
    let mut sums = RatioSums::new(study.groups.len());
    let mut generated = [false; 2];
    for span in spans {
        let (a, b) = (&base.sequences[span.sequence], &other.sequences[span.other_sequence]);
        let prompts = (prompt_of(base, a), prompt_of(other, b));
        let (x, y) = (a.end - a.start - prompts.0, b.end - b.start - prompts.1);
        generated[0] |= x > 0;
        generated[1] |= y > 0;
        let equal = span.tokens.saturating_sub(prompts.0.max(prompts.1));
        let group = study.groups.of_sequence(span.sequence);
        sums.add(group, Phase::Decode, equal as f64, x.max(y) as f64);
    }
    if generated != [true; 2] {
        return Err(Refusal::NothingGenerated);
    }
    let scope = study.overall();
    let row = study.row("equal_tokens", "ratio", scope);
    let found = sums.ratio(scope, (0.0, 1.0)).ok_or(Refusal::NothingGenerated)?;
    Ok(vec![MetricRow { value: found.0, interval: found.1, ..row }])
}

/// Rows of `logprob_difference` (mean absolute) and `logprob_change` (mean, the other run less the
/// base), over tokens that both read after the same tokens.
pub(super) fn logprobs(
    study: &Study<'_>,
    other: &RunData,
    spans: &[Span],
) -> Result<Vec<MetricRow>, Refusal> {
    let base = study.data;
    let (Some(x), Some(y)) = (&base.tokens.logprob, &other.tokens.logprob) else {
        return Err(Refusal::NoLogprobs);
    };
    let groups = study.groups.len();
    let mut sums = [RatioSums::new(groups), RatioSums::new(groups)];
    for span in spans {
        let group = study.groups.of_sequence(span.sequence);
        for at in 0..span.tokens {
            let change = f64::from(y[span.other + at]) - f64::from(x[span.base + at]);
            // NaN where one has none, such as the first token of a sequence.
            if change.is_finite() {
                let phase = base.tokens.phase[span.base + at];
                sums[0].add(group, phase, change.abs(), 1.0);
                sums[1].add(group, phase, change, 1.0);
            }
        }
    }
    let scope = study.overall();
    let named = [("logprob_difference", (0.0, f64::MAX)), ("logprob_change", (f64::MIN, f64::MAX))];
    let rows = named.into_iter().zip(&sums).filter_map(|((metric, bounds), sums)| {
        let (value, interval) = sums.ratio(scope, bounds)?;
        Some(MetricRow { value, interval, ..study.row(metric, "nats", scope) })
    });
    Ok(rows.collect())
}
