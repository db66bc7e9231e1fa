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
    /// What kind of question it answers.
    pub group: Group,
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

/// Kinds of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// How evenly experts are used.
    Balance,
    /// What experts have to do with domains, tokens, each other, and the layers around them.
    Structure,
    /// What follows what, and what caches and prefetchers make of it.
    Locality,
    /// Which experts could go, and which GPU could hold which.
    Deployment,
    /// Times, memory, and what passes read.
    Speed,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Balance, Self::Structure, Self::Locality, Self::Deployment, Self::Speed];

    /// Heading.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Balance => "Balance",
            Self::Structure => "Specialisation and structure",
            Self::Locality => "Locality and caching",
            Self::Deployment => "Pruning and placement",
            Self::Speed => "Speed and memory",
        }
    }
}

/// Something a run may or may not have, or be small enough for.
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
    /// At most [`Need::MAX_DOMAINS`] domains.
    FewDomains,
    /// A layer of at most [`Need::MAX_EXPERTS`] experts.
    FewExperts,
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
    /// Domains beyond which their pairs are more than anyone reads.
    pub const MAX_DOMAINS: usize = 64;

    /// Experts beyond which counts of pairs would take more memory than they are worth: E² numbers for
    /// each layer.
    pub const MAX_EXPERTS: usize = 1024;

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
            Need::FewDomains => "at most 64 domains",
            Need::FewExperts => "a layer of at most 1024 experts",
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

    /// Whether it is a limit on the size of a run, not something to record.
    const fn is_limit(self) -> bool {
        matches!(self, Need::FewDomains | Need::FewExperts)
    }

    /// Why a metric that needs these has no values: `not recorded: expert output norms (run with
    /// --saliency)`, `too large: computed for at most 64 domains`.
    pub(crate) fn absence(missing: &[Need]) -> String {
        let words = |need: &Need| match need.option() {
            Some(option) => format!("{} (run with {option})", need.what()),
            None => need.what().to_owned(),
        };
        let (limits, lacking): (Vec<Need>, Vec<Need>) =
            missing.iter().partition(|need| need.is_limit());
        let listed = |needs: &[Need]| needs.iter().map(words).collect::<Vec<_>>().join(", ");
        if lacking.is_empty() {
            format!("too large: computed for {}", listed(&limits))
        } else {
            format!("not recorded: {}", listed(&lacking))
        }
    }
}
