//! How far two models generate the same text.

use moescope_trace::Phase;

use super::pair::Pair;
use super::tokens::prompt_of;
use super::{ComparisonMetric, Part, Refusal};
use crate::metric::Need;
use crate::ratio::RatioSums;
use crate::row::MetricRow;

/// Rows: all tokens; domain. Interval: bootstrap over sequences.
pub(super) const EQUAL_TOKENS: ComparisonMetric = ComparisonMetric {
    name: "equal_tokens",
    title: "Equal generated tokens",
    unit: "ratio",
    formula: "tokens generated before the first that differs / tokens of the longer of both generations, summed over \
              sequences",
    chance: "",
    source: "Agreement of greedy tokens. What follows the first difference answers another text, so it does not \
             count as equal even where it is",
    part: Part::Output,
    token_wise: true,
    needs: &[Need::TokenIds],
    of_each: None,
    compute: rows,
};

fn rows(pair: &Pair<'_>) -> Result<Vec<MetricRow>, Refusal> {
    let (study, base, other) = (pair.base, pair.base.data, pair.other.data);
    for data in [base, other] {
        if data.manifest.settings.sampling.temperature != 0.0 {
            return Err(Refusal::Sampled);
        }
    }
    let mut sums = RatioSums::new(study.groups.len());
    let mut generated = [false; 2];
    for span in pair.spans()? {
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
    // Generated tokens are of one phase.
    let scopes = study.scopes().iter().filter(|scope| scope.phase.is_none());
    let of_scope = |scope| {
        let (value, interval) = sums.ratio(scope, (0.0, 1.0))?;
        Some(MetricRow { value, interval, ..pair.row(&EQUAL_TOKENS, scope) })
    };
    Ok(scopes.filter_map(of_scope).collect())
}
