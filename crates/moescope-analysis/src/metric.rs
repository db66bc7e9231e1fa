//! What a metric is.

use crate::row::MetricRow;
use crate::study::Study;

/// One metric: its definition in words and the function that computes it.
#[derive(Clone, Copy)]
pub struct Metric {
    /// Name, as in [`MetricRow::metric`].
    pub name: &'static str,
    /// Heading.
    pub title: &'static str,
    /// Unit of its values.
    pub unit: &'static str,
    /// Definition, in the letters of metrics: T, E, k, c_e.
    pub formula: &'static str,
    /// Its level under uniform, independent routing, in words; empty where there is none.
    pub chance: &'static str,
    /// Who defined it, or why it is what it is.
    pub source: &'static str,
    /// What a run must have recorded for it.
    pub needs: &'static [Need],
    /// Computes all its rows: layers ascending, then scope, then index.
    pub compute: fn(&Study<'_>) -> Vec<MetricRow>,
}

/// Something a run may or may not have recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Expert ids.
    Ids,
    /// Weights of the selected experts.
    Weights,
    /// Entropy of the router distribution.
    Entropy,
    /// Top-k margin of the router distribution.
    Margin,
    /// Norms of the selected experts' outputs.
    OutputNorms,
    /// Ids of the tokens.
    TokenIds,
    /// Forward passes, timed or not.
    Passes,
    /// Log-probabilities of the tokens.
    Logprobs,
    /// At least two domains.
    Domains,
    /// At least two MoE layers.
    Layers,
    /// Generated tokens after prompts.
    Decode,
    /// End-to-end times of the forward passes.
    Times,
    /// Bytes in use in the device's memory pools.
    BytesInUse,
    /// Bytes the device's memory pools hold.
    BytesReserved,
    /// Resident memory of the process.
    Rss,
}

impl Need {
    /// The thing in words, to go before "not recorded".
    pub const fn what(self) -> &'static str {
        match self {
            Need::Ids => "expert ids",
            Need::Weights => "expert weights",
            Need::Entropy => "router entropy",
            Need::Margin => "router margin",
            Need::OutputNorms => "expert output norms",
            Need::TokenIds => "token ids",
            Need::Passes => "forward passes",
            Need::Logprobs => "log-probabilities",
            Need::Domains => "a second domain",
            Need::Layers => "a second MoE layer",
            Need::Decode => "generated tokens after prompts",
            Need::Times => "end-to-end times",
            Need::BytesInUse => "device memory in use",
            Need::BytesReserved => "device memory reserved",
            Need::Rss => "process memory",
        }
    }

    /// How to record it, where it takes an option of `moescope run`.
    pub const fn option(self) -> Option<&'static str> {
        match self {
            Need::OutputNorms => Some("--saliency"),
            _ => None,
        }
    }

    /// Why a metric that needs these has no values: `not recorded: expert output norms (run with
    /// --saliency)`.
    pub(crate) fn not_recorded(missing: &[Need]) -> String {
        let words = missing.iter().map(|need| match need.option() {
            Some(option) => format!("{} (run with {option})", need.what()),
            None => need.what().to_owned(),
        });
        format!("not recorded: {}", words.collect::<Vec<_>>().join(", "))
    }
}
