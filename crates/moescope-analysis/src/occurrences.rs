//! Where each token id occurs.

use std::ops::Range;

use crate::study::{Scope, Study};

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
    /// Of the tokens of a scope; what follows them may be of another phase.
    pub(crate) fn new(study: &Study<'_>, scope: &Scope, which: Which) -> Self {
        let ids = &study.data.tokens.token_id;
        let ahead = which as usize;
        // The last token of a sequence is followed by none.
        let mut ends = vec![false; if ahead > 0 { ids.len() } else { 0 }];
        if ahead > 0 {
            for sequence in study.data.sequences.iter().filter(|s| s.end > s.start) {
                ends[sequence.end - 1] = true;
            }
        }
        let mut keys: Vec<(u32, u32)> = Vec::new();
        for (_, run) in study.stretches(scope) {
            let tokens = run.filter(|&token| ends.get(token) != Some(&true));
            keys.extend(tokens.map(|token| (ids[token + ahead], token as u32)));
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
