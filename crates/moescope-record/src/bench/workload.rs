//! The tokens a bench reads.
//!
//! Which experts run depends on the tokens, so text, random ids and a recorded run are workloads of
//! their own, and rows carry the name. A workload is a stream of tokens; sequence b of a row reads it from
//! a place that depends on b alone. So every arm, every sample and every grid that has the row reads the
//! same tokens, and what is generated is taken from the stream too: nothing is sampled.

use moescope_model::{ModelSpec, check_ids};
use moescope_trace::Run;

use super::{error::BenchError, facts::short, rng::Rng};
use crate::{error::Result, replay::Recorded};

/// Ids, and for a replay the experts of each.
pub struct Workload {
    name: &'static str,
    source: Source,
}

enum Source {
    /// A stream that starts over at its end.
    Stream(Vec<u32>),
    /// Uniform ids below `vocab`.
    Random {
        vocab: usize,
        seed: u64,
    },
    Replay(Recorded),
}

impl Workload {
    /// Text as token ids: prompts one after the other. Where a row needs more than there are, they start over.
    ///
    /// # Errors
    ///
    /// No token, or one beyond the vocabulary.
    pub fn text(tokens: Vec<u32>, spec: &ModelSpec) -> Result<Self> {
        check_ids(&tokens, spec.vocab)?;
        if tokens.is_empty() {
            let reason = "the prompts are empty".into();
            return Err(BenchError::NoTokens { workload: "text", reason }.into());
        }
        Ok(Workload { name: "text", source: Source::Stream(tokens) })
    }

    /// Ids drawn uniformly from the vocabulary.
    pub fn random(spec: &ModelSpec, seed: u64) -> Self {
        Workload { name: "random", source: Source::Random { vocab: spec.vocab, seed } }
    }

    /// The tokens of a run and the experts each of them selected, which are forced.
    ///
    /// # Errors
    ///
    /// The run can't be read, lacks routing, or is of another MoE shape or a larger vocabulary than the model.
    pub fn replay(run: &Run, spec: &ModelSpec) -> Result<Self> {
        let recorded = Recorded::read(run)?;
        recorded.check(spec)?;
        Ok(Workload { name: "replay", source: Source::Replay(recorded) })
    }

    /// `text`, `random` or `replay`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Hash of all there is to read.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.name.as_bytes());
        let mut add = |id: u32| {
            hasher.update(&id.to_le_bytes());
        };
        match &self.source {
            Source::Stream(tokens) => tokens.iter().for_each(|&id| add(id)),
            Source::Random { vocab, seed } => {
                [*vocab as u32, *seed as u32, (*seed >> 32) as u32].into_iter().for_each(add);
            }
            Source::Replay(recorded) => {
                let experts = recorded.experts().iter().flatten().map(|&id| u32::from(id));
                recorded.tokens().iter().copied().chain(experts).for_each(add);
            }
        }
        short(&hasher)
    }

    /// Tokens before the stream starts over; `None` where it never does.
    pub fn tokens(&self) -> Option<usize> {
        match &self.source {
            Source::Stream(tokens) => Some(tokens.len()),
            Source::Random { .. } => None,
            Source::Replay(recorded) => Some(recorded.tokens().len()),
        }
    }

    /// The first `count` tokens of sequence `b`.
    pub fn sequence(&self, b: u32, count: usize) -> Vec<u32> {
        match &self.source {
            Source::Stream(tokens) => walk(tokens.len(), b, count).map(|at| tokens[at]).collect(),
            Source::Random { vocab, seed } => {
                let mut rng = Rng::new(seed ^ u64::from(b + 1).wrapping_mul(0xa24b_aed4_963e_e407));
                (0..count).map(|_| rng.below(*vocab) as u32).collect()
            }
            Source::Replay(recorded) => {
                let tokens = recorded.tokens();
                walk(tokens.len(), b, count).map(|row| tokens[row]).collect()
            }
        }
    }

    /// The run whose experts are forced, and its rows that the first `count` tokens of sequence `b` are;
    /// `None` where the router decides.
    pub(super) fn forced(&self, b: u32, count: usize) -> Option<(&Recorded, Vec<usize>)> {
        let Source::Replay(recorded) = &self.source else { return None };
        Some((recorded, walk(recorded.tokens().len(), b, count).collect()))
    }
}

/// Places of a stream of `len` tokens that sequence `b` reads. Starts are multiples of the golden ratio, so
/// that those of any number of sequences lie far apart (Weyl's sequence).
fn walk(len: usize, b: u32, count: usize) -> impl Iterator<Item = usize> {
    let share = u64::from(b).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let start = ((u128::from(share) * len as u128) >> 64) as usize;
    (0..count).map(move |i| (start + i) % len)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The start of a sequence, and so its tokens, do not depend on what else is asked for.
    #[test]
    fn sequences_are_prefixes_of_each_other_and_lie_apart() {
        for workload in [
            Workload { name: "text", source: Source::Stream((0..1000).collect()) },
            Workload { name: "random", source: Source::Random { vocab: 1000, seed: 7 } },
        ] {
            let starts: Vec<u32> = (0..8).map(|b| workload.sequence(b, 1)[0]).collect();
            for b in 0..8 {
                assert_eq!(workload.sequence(b, 50), workload.sequence(b, 90)[..50]);
                assert!(workload.sequence(b, 2000).iter().all(|&id| id < 1000));
            }
            let mut apart = starts.clone();
            apart.sort_unstable();
            apart.dedup();
            assert_eq!(apart.len(), 8, "{} {starts:?}", workload.name());
        }
        let text = Workload { name: "text", source: Source::Stream(vec![5, 6]) };
        assert_eq!(text.sequence(0, 5), [5, 6, 5, 6, 5]);
    }

    #[test]
    fn random_ids_are_spread_and_depend_on_the_seed() {
        let draw = |seed| {
            let source = Source::Random { vocab: 64, seed };
            Workload { name: "random", source }.sequence(0, 6400)
        };
        let mut counts = [0; 64];
        draw(1).iter().for_each(|&id| counts[id as usize] += 1);
        assert!(counts.iter().all(|&count| (60..140).contains(&count)), "{counts:?}");
        assert_ne!(draw(1), draw(2));
        let hash = |source| Workload { name: "random", source }.hash();
        let [one, two] = [1, 1 << 32].map(|seed| hash(Source::Random { vocab: 64, seed }));
        assert_ne!(one, two);
        assert_eq!(one, hash(Source::Random { vocab: 64, seed: 1 }));
        assert_ne!(hash(Source::Stream(vec![1, 2])), hash(Source::Stream(vec![2, 1])));
    }
}
