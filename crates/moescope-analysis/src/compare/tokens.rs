//! Which tokens two runs both read after the same tokens.

use moescope_trace::Phase;

use super::Refusal;
use crate::data::{RunData, Sequence};
use crate::metric::Need;

/// Tokens of one sequence that both runs read after the same tokens.
pub(super) struct Span {
    /// Index of the sequence in the base.
    pub(super) sequence: usize,
    /// Index of the sequence in the other run.
    pub(super) other_sequence: usize,
    /// First token in the base.
    pub(super) base: usize,
    /// First token in the other run.
    pub(super) other: usize,
    /// Number of them.
    pub(super) tokens: usize,
}

/// The sequences of both runs, up to where their tokens part.
///
/// What decides is the tokens: prompt sets with different hashes (another domain name, more
/// prompts) are compared if the prompts that both have are the same.
pub(super) fn common_tokens(base: &RunData, other: &RunData) -> Result<Vec<Span>, Refusal> {
    // An empty hash is none.
    let hash = &base.manifest.prompts_hash;
    let same_hash = !hash.is_empty() && *hash == other.manifest.prompts_hash;
    let known = base.has(Need::TokenIds) && other.has(Need::TokenIds);
    if !(same_hash || known) {
        return Err(Refusal::NoTokenIds);
    }
    let refusal = |sequence: u32, position: u32| match same_hash {
        true => Refusal::PromptToken { sequence, position },
        false => Refusal::Prompts { first: (sequence, position) },
    };
    let mut spans = Vec::new();
    let mut others = other.sequences.iter().enumerate().peekable();
    // Both lists ascend by id.
    for (index, a) in base.sequences.iter().enumerate() {
        while others.next_if(|(_, b)| b.id < a.id).is_some() {}
        let Some((other_index, b)) = others.next_if(|(_, b)| b.id == a.id) else {
            continue;
        };
        let prompts = (prompt_of(base, a), prompt_of(other, b));
        // Of the same hash are the prompts; what was generated must be looked at.
        let most = match known {
            true => (a.end - a.start).min(b.end - b.start),
            false => prompts.0.min(prompts.1),
        };
        let (x, y) = (&base.tokens, &other.tokens);
        let same = (0..most)
            .take_while(|&at| {
                let (i, j) = (a.start + at, b.start + at);
                x.position[i] == y.position[j] && (!known || x.token_id[i] == y.token_id[j])
            })
            .count();
        if same < most && same < prompts.0.min(prompts.1) {
            return Err(refusal(a.id, x.position[a.start + same]));
        }
        // Prompts of the same hash are as long; what is missing of one was not recorded.
        if !same_hash && prompts.0 != prompts.1 {
            return Err(refusal(a.id, prompts.0.min(prompts.1) as u32));
        }
        spans.push(Span {
            sequence: index,
            other_sequence: other_index,
            base: a.start,
            other: b.start,
            tokens: same,
        });
    }
    if spans.iter().all(|span| span.tokens == 0) {
        return Err(Refusal::NothingInCommon);
    }
    Ok(spans)
}

/// Tokens of a sequence before the first that was generated.
pub(super) fn prompt_of(data: &RunData, sequence: &Sequence) -> usize {
    let phases = &data.tokens.phase[sequence.start..sequence.end];
    phases.iter().position(|&phase| phase == Phase::Decode).unwrap_or(phases.len())
}
