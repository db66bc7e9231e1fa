//! The stretches of a run that caches are simulated over.

use moescope_trace::Phase;

use crate::data::Sequence;
use crate::study::{Scope, Study};

/// What part of each sequence is simulated, and what part of that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stretch {
    /// All of it.
    Sequence,
    /// What was generated, from an empty cache.
    Generated,
    /// What was generated, from the cache that the prompt left.
    AfterPrompt,
}

impl Stretch {
    /// The scopes whose hits follow from it.
    pub(super) fn scopes<'s>(self, study: &'s Study<'_>) -> impl Iterator<Item = &'s Scope> {
        study.scopes_crossed().iter().filter(move |scope| match self {
            Self::Sequence => scope.phase.is_none(),
            Self::Generated => scope.phase == Some(Phase::Decode) && scope.domain.is_none(),
            Self::AfterPrompt => scope.phase == Some(Phase::Decode),
        })
    }
}

/// A stretch of a sequence that is simulated.
pub(crate) struct Span {
    pub(super) group: u32,
    /// First token.
    pub(super) start: usize,
    /// One past the last token of the prompt.
    pub(super) prompt_end: usize,
    /// First token that counts.
    pub(super) counted: usize,
    /// One past the last token.
    pub(super) end: usize,
}

/// The stretches of all sequences in which anything counts.
pub(super) fn spans(study: &Study<'_>, stretch: Stretch) -> Vec<Span> {
    let prompt_end = |sequence: &Sequence| {
        let phases = &study.data.tokens.phase[sequence.start..sequence.end];
        let prompt = phases.iter().position(|&phase| phase == Phase::Decode);
        sequence.start + prompt.unwrap_or(phases.len())
    };
    let sequences = study.data.sequences.iter().enumerate();
    sequences
        .map(|(index, sequence)| {
            let prompt_end = prompt_end(sequence);
            let (start, counted) = match stretch {
                Stretch::Sequence => (sequence.start, sequence.start),
                Stretch::Generated => (prompt_end, prompt_end),
                Stretch::AfterPrompt => (sequence.start, prompt_end),
            };
            let group = study.groups.of_sequence(index) as u32;
            Span { group, start, prompt_end, counted, end: sequence.end }
        })
        .filter(|span| span.counted < span.end)
        .collect()
}

/// Tokens before those that count and tokens that count, of each stretch in a scope.
pub(super) fn lengths(spans: &[Span], study: &Study<'_>, scope: &Scope) -> Vec<(usize, usize)> {
    let inside = |span: &&Span| {
        let domain = study.groups.domain(span.group as usize);
        scope.domain.is_none_or(|wanted| wanted == domain)
    };
    let length = |span: &Span| (span.counted - span.start, span.end - span.counted);
    spans.iter().filter(inside).map(length).collect()
}
