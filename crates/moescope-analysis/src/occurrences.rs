//! Where each token id occurs.

use std::ops::Range;

use crate::data::RunData;

/// What a token stands for when its experts are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The token itself.
    Input = 0,
    /// The token that follows it in the sequence.
    Next = 1,
}

/// Tokens by id: of the input, or of what follows.
pub(crate) struct Occurrences {
    /// Tokens, grouped by id; ascending within an id.
    tokens: Vec<u32>,
    /// Ids ascending, and where their tokens are.
    ids: Vec<(u32, Range<usize>)>,
}

impl Occurrences {
    pub(crate) fn new(data: &RunData, which: Which) -> Self {
        let ids = &data.tokens.token_id;
        let mut keys: Vec<(u32, u32)> = Vec::with_capacity(ids.len());
        for sequence in &data.sequences {
            let ahead = which as usize;
            let last = sequence.end.saturating_sub(ahead);
            keys.extend((sequence.start..last).map(|token| (ids[token + ahead], token as u32)));
        }
        keys.sort_unstable();
        let mut start = 0;
        let groups = keys.chunk_by(|a, b| a.0 == b.0).map(|chunk| {
            let range = start..start + chunk.len();
            start = range.end;
            (chunk[0].0, range)
        });
        Self { ids: groups.collect(), tokens: keys.iter().map(|key| key.1).collect() }
    }

    /// Ids with at least `least` occurrences, ascending, each with its tokens.
    pub(crate) fn frequent(&self, least: usize) -> impl Iterator<Item = (u32, &[u32])> {
        self.ids
            .iter()
            .filter(move |(_, range)| range.len() >= least)
            .map(|(id, range)| (*id, &self.tokens[range.clone()]))
    }
}
