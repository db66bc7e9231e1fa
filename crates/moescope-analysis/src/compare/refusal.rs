//! Why a part of a comparison is missing.

use std::fmt;

use crate::metric::Need;

/// Why two runs, or a part of them, are not compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A run recorded no routing.
    NoRouting,
    /// The MoE layers differ in number, experts or experts per token.
    Shape,
    /// The prompt sets differ.
    Prompts {
        /// Sequence and position of the first prompt token that differs.
        first: (u32, u32),
    },
    /// A run recorded no token ids, and nothing else says that both read the same prompts.
    NoTokenIds,
    /// The prompt sets have the same hash, yet a prompt token differs.
    PromptToken {
        /// Sequence of the first such token.
        sequence: u32,
        /// Its position.
        position: u32,
    },
    /// No sequence is in both runs.
    NothingInCommon,
    /// A run generated nothing.
    NothingGenerated,
    /// A run chose its tokens at random.
    Sampled,
    /// A run recorded no log-probabilities.
    NoLogprobs,
    /// A run has no end-to-end times.
    NoTimes,
    /// A run recorded something else that is needed not at all.
    NotRecorded(Need),
    /// The runs were on different machines: in what they differ, such as `devices`.
    Machines(Vec<&'static str>),
}

impl Refusal {
    /// What a run that did not record this refuses.
    pub(super) fn not_recorded(need: Need) -> Self {
        match need {
            Need::Ids => Refusal::NoRouting,
            Need::TokenIds => Refusal::NoTokenIds,
            Need::Logprobs => Refusal::NoLogprobs,
            Need::Times => Refusal::NoTimes,
            other => Refusal::NotRecorded(other),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoRouting => f.write_str("a run recorded no routing"),
            Refusal::Shape => f.write_str(
                "the models differ in their MoE layers: layers, experts or experts per token",
            ),
            Refusal::Prompts { first: (sequence, position) } => write!(
                f,
                "the prompt sets differ, first in sequence {sequence} at position {position}; record \
                 both runs from the same prompts to compare tokens"
            ),
            Refusal::NoTokenIds => f.write_str(
                "token ids were not recorded, so whether both runs read the same tokens is not known",
            ),
            Refusal::PromptToken { sequence, position } => write!(
                f,
                "the prompts have the same hash, but sequence {sequence} differs at position \
                 {position}: a run directory was edited or mixes two runs"
            ),
            Refusal::NothingInCommon => f.write_str("no sequence is in both runs"),
            Refusal::NothingGenerated => f.write_str("a run generated no tokens"),
            Refusal::Sampled => f.write_str(
                "a run was sampled at a temperature above 0: its tokens differ by chance",
            ),
            Refusal::NoLogprobs => f.write_str("a run recorded no log-probabilities"),
            Refusal::NoTimes => {
                f.write_str("a run has no end-to-end times (imported, or recorded with --profile)")
            }
            Refusal::NotRecorded(need) => f.write_str(&Need::absence(&[*need])),
            Refusal::Machines(differences) => write!(
                f,
                "the runs were recorded on different {}, so a difference in speed is that of the \
                 machines as much as of the runs",
                differences.join(" and ")
            ),
        }
    }
}
