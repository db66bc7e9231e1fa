//! What a metric of two runs is.

use super::{Refusal, pair::Pair};
use crate::metric::Need;
use crate::row::MetricRow;

/// One metric of two runs: its definition in words and the function that computes it.
#[derive(Clone, Copy)]
pub struct ComparisonMetric {
    /// Name, as in [`MetricRow::metric`].
    pub name: &'static str,
    /// Heading.
    pub title: &'static str,
    /// Unit of its values.
    pub unit: &'static str,
    /// Definition, in the letters of metrics; a is the base and b the other run.
    pub formula: &'static str,
    /// Its level if the runs had nothing to do with each other, in words; for ratios the value of equal
    /// runs. Empty where there is none.
    pub chance: &'static str,
    /// Who defined it, or why it is what it is.
    pub source: &'static str,
    /// The part of a comparison it belongs to.
    pub part: Part,
    /// Whether it looks at tokens that both runs read after the same tokens, and at no others.
    pub token_wise: bool,
    /// What both runs must have recorded for it.
    pub needs: &'static [Need],
    /// The metric of single runs that a ratio is about.
    pub of_each: Option<&'static str>,
    /// Computes all its rows: those over all domains and phases first, of these layers first.
    pub(crate) compute: fn(&Pair<'_>) -> Result<Vec<MetricRow>, Refusal>,
}

/// A part of a comparison: what is refused together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Which experts.
    Routing,
    /// Generated tokens.
    Output,
    /// Log-probabilities.
    Logprobs,
    /// Times.
    Speed,
    /// Memory.
    Memory,
}

impl Part {
    /// Its name, as in [`super::Comparison::missing`].
    pub const fn name(self) -> &'static str {
        match self {
            Part::Routing => "routing",
            Part::Output => "output",
            Part::Logprobs => "log-probabilities",
            Part::Speed => "speed",
            Part::Memory => "memory",
        }
    }
}
