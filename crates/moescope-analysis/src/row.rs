//! The long table every metric reports into.

use serde::Serialize;

/// One value of one metric: a row of the long table. Columns that do not apply are `None`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricRow {
    /// Name of the metric as in the registry, such as `gini`.
    pub metric: &'static str,
    /// Model layer.
    pub layer: Option<u16>,
    /// What the value is about inside the layer: an expert, a rank, a quantile.
    pub index: Option<Index>,
    /// Domain of the prompts; `None` is all of them.
    pub domain: Option<String>,
    /// `prefill` or `decode`; `None` is both.
    pub phase: Option<&'static str>,
    /// The value, in `unit`.
    pub value: f64,
    /// 95 % bootstrap interval over sequences; `None` where there are fewer than 5 of them, and for
    /// metrics that resampling says nothing about (numbers of tokens, dead experts, peaks).
    pub interval: Option<(f64, f64)>,
    /// The value under uniform, independent routing; for statistics that sampling noise moves, its
    /// expectation for as many tokens.
    pub chance: Option<f64>,
    /// Unit: `ratio`, `nats`, `experts`, `tokens/s`, `ns`, `bytes`, ...
    pub unit: &'static str,
}

/// The last coordinate of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Index {
    /// An expert of the layer.
    Expert(u16),
    /// Rank among a token's selected experts, from 0.
    Rank(u16),
    /// Percentile of a distribution, in percent.
    Percentile(u8),
    /// Two experts (i, j); for `domain_divergence` two domains, as indices into the analysis'
    /// `domains`.
    Pair(u16, u16),
    /// Distance in tokens.
    Lag(u32),
    /// Experts, tokens or a window of that size.
    Size(u32),
}
