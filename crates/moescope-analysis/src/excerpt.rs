//! A part of a run small enough to be looked at token by token.

use std::ops::Range;

use crate::data::{LayerData, RunData, TokenData};
use crate::texts::TokenTexts;

/// Tokens an excerpt holds at most.
const MAX_TOKENS: usize = 5_000;

/// A sequence is cut no shorter than this to make room for other domains.
const WORTH_READING: usize = 500;

/// Some sequences of a run with what was recorded about each of their tokens. Domains take turns, so
/// that a beginning of [`Excerpt::sequences`] is an excerpt as well.
#[derive(Clone, Debug, Default)]
pub struct Excerpt {
    /// The sequences, a domain after the other, in rounds.
    pub sequences: Vec<ExcerptSequence>,
    /// Columns of their tokens, `[T']`.
    pub tokens: TokenData,
    /// Experts, weights and entropies of their tokens at each MoE layer, `[T', k]` and `[T']`. Margins
    /// are left out.
    pub layers: Vec<LayerData>,
}

/// One sequence of an excerpt: the tokens `start..end` of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExcerptSequence {
    /// Its number in the run directory.
    pub id: u32,
    /// Index of its domain in the run.
    pub domain: u16,
    /// First token.
    pub start: usize,
    /// One past its last token.
    pub end: usize,
    /// Tokens of the whole sequence; more than `end - start` where it was cut.
    pub whole: usize,
}

impl Excerpt {
    /// Takes the sequences of each domain in turn while they fit; of long ones the beginning.
    pub fn new(data: &RunData) -> Self {
        Self::at_most(data, MAX_TOKENS)
    }

    fn at_most(data: &RunData, most: usize) -> Self {
        let longest = (most / data.domains.len().max(1)).max(WORTH_READING);
        let mut of_domain = vec![Vec::new(); data.domains.len()];
        for sequence in data.sequences.iter().filter(|sequence| sequence.end > sequence.start) {
            of_domain[usize::from(sequence.domain)].push(*sequence);
        }
        let rounds = of_domain.iter().map(Vec::len).max().unwrap_or(0);
        let turns =
            (0..rounds).flat_map(|round| of_domain.iter().filter_map(move |s| s.get(round)));

        let (mut sequences, mut ranges) = (Vec::new(), Vec::new());
        let mut used = 0;
        for sequence in turns {
            let whole = sequence.end - sequence.start;
            let length = whole.min(longest);
            if length > most - used {
                continue;
            }
            ranges.push(sequence.start..sequence.start + length);
            sequences.push(ExcerptSequence {
                id: sequence.id,
                domain: sequence.domain,
                start: used,
                end: used + length,
                whole,
            });
            used += length;
            if used == most {
                break;
            }
        }
        let tokens = &data.tokens;
        Self {
            sequences,
            tokens: TokenData {
                position: taken(&tokens.position, &ranges, 1),
                token_id: taken(&tokens.token_id, &ranges, 1),
                step: taken(&tokens.step, &ranges, 1),
                phase: taken(&tokens.phase, &ranges, 1),
                logprob: tokens.logprob.as_ref().map(|values| taken(values, &ranges, 1)),
                texts: tokens.texts.as_ref().and_then(|texts| {
                    TokenTexts::collect(ranges.iter().cloned().flatten().map(|at| texts.of(at)))
                }),
            },
            layers: data.layers.iter().map(|layer| part(layer, &ranges)).collect(),
        }
    }
}

fn part(layer: &LayerData, ranges: &[Range<usize>]) -> LayerData {
    let k = layer.top_k;
    LayerData {
        weights: layer.weights.as_ref().map(|weights| taken(weights, ranges, k)),
        entropy: layer.entropy.as_ref().map(|entropy| taken(entropy, ranges, 1)),
        ..LayerData::from_ids(layer.layer, layer.experts, k, taken(&layer.ids, ranges, k))
    }
}

/// The values of the tokens in `ranges`, `width` each.
fn taken<T: Copy>(values: &[T], ranges: &[Range<usize>], width: usize) -> Vec<T> {
    ranges
        .iter()
        .flat_map(|range| &values[range.start * width..range.end * width])
        .copied()
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Token n has experts n and n + 1 (of 8) and the text `n`.
    fn run(sequences: &[(&str, usize)]) -> RunData {
        let total: usize = sequences.iter().map(|(_, tokens)| tokens).sum();
        let ids = (0..total).flat_map(|n| [(n % 8) as u16, ((n + 1) % 8) as u16]).collect();
        let layer = LayerData {
            weights: Some((0..total).flat_map(|n| [n as f32, 0.5]).collect()),
            ..LayerData::from_ids(3, 8, 2, ids)
        };
        let mut data = RunData::from_ids("run", sequences, vec![layer]).unwrap();
        let texts: Vec<String> = (0..total).map(|n| n.to_string()).collect();
        data.tokens.texts = TokenTexts::collect(texts.iter().map(String::as_str));
        data.check().unwrap();
        data
    }

    #[test]
    fn domains_take_turns_and_tokens_keep_their_values() {
        let data = run(&[("a", 3), ("a", 4), ("b", 2), ("a", 50), ("b", 5)]);
        let excerpt = Excerpt::at_most(&data, 15);
        // One of each domain, then the second of each; the long one has no room.
        let ids: Vec<u32> = excerpt.sequences.iter().map(|sequence| sequence.id).collect();
        assert_eq!(ids, [0, 2, 1, 4]);
        assert_eq!(
            excerpt.sequences[2],
            ExcerptSequence { id: 1, domain: 0, start: 5, end: 9, whole: 4 }
        );
        let texts = excerpt.tokens.texts.as_ref().unwrap();
        let layer = &excerpt.layers[0];
        for (at, original) in
            [0, 1, 2, 7, 8, 3, 4, 5, 6, 59, 60, 61, 62, 63].into_iter().enumerate()
        {
            assert_eq!(texts.of(at), original.to_string());
            assert_eq!(layer.experts_of(at), data.layers[0].experts_of(original));
            assert_eq!(layer.weights.as_ref().unwrap()[2 * at], original as f32);
        }
        assert_eq!(texts.len(), 14);
    }

    #[test]
    fn long_sequences_are_cut_and_the_whole_length_is_known() {
        let data = run(&[("a", 9_000), ("b", 700)]);
        let excerpt = Excerpt::new(&data);
        let lengths: Vec<_> =
            excerpt.sequences.iter().map(|s| (s.end - s.start, s.whole)).collect();
        assert_eq!(lengths, [(2_500, 9_000), (700, 700)]);
        assert!(Excerpt::new(&run(&[])).sequences.is_empty());
    }
}
