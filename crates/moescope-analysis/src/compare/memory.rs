//! Memory of a run as ratios to that of a base.

use std::collections::HashMap;

use super::pair::Pair;
use super::passes::Passes;
use super::samples::ratio_row;
use super::{ComparisonMetric, Part, Refusal};
use crate::metric::Need;
use crate::row::MetricRow;

/// Rows: one. Interval: bootstrap over sequences.
pub(super) const BYTES_IN_USE_RATIO: ComparisonMetric = ComparisonMetric {
    name: "bytes_in_use_ratio",
    title: "Device memory in use against the base",
    unit: "ratio",
    formula: "largest bytes_in_use after a pass of a sequence in b over that in a: Hodges-Lehmann estimate of the \
              ratio",
    chance: "1 (as much)",
    source: "Burn's memory pools, as `peak_bytes_in_use`",
    part: Part::Memory,
    token_wise: false,
    needs: &[Need::BytesInUse],
    of_each: Some("peak_bytes_in_use"),
    compute: |pair| rows(pair, &BYTES_IN_USE_RATIO, 0),
};

/// Rows: one. Interval: bootstrap over sequences.
pub(super) const BYTES_RESERVED_RATIO: ComparisonMetric = ComparisonMetric {
    name: "bytes_reserved_ratio",
    title: "Device memory reserved against the base",
    unit: "ratio",
    formula: "largest bytes_reserved after a pass of a sequence in b over that in a: Hodges-Lehmann estimate of the \
              ratio",
    chance: "1 (as much)",
    source: "Burn's memory pools, as `peak_bytes_reserved`",
    part: Part::Memory,
    token_wise: false,
    needs: &[Need::BytesReserved],
    of_each: Some("peak_bytes_reserved"),
    compute: |pair| rows(pair, &BYTES_RESERVED_RATIO, 1),
};

/// Rows: one. Interval: bootstrap over sequences.
pub(super) const RSS_RATIO: ComparisonMetric = ComparisonMetric {
    name: "rss_ratio",
    title: "Process memory against the base",
    unit: "ratio",
    formula: "largest rss_bytes after a pass of a sequence in b over that in a: Hodges-Lehmann estimate of the ratio",
    chance: "1 (as much)",
    source: "Resident set size as the operating system reports it, as `peak_rss_bytes`",
    part: Part::Memory,
    token_wise: false,
    needs: &[Need::Rss],
    of_each: Some("peak_rss_bytes"),
    compute: |pair| rows(pair, &RSS_RATIO, 2),
};

/// The ratio of the peaks of each sequence, where both recorded them.
fn rows(
    pair: &Pair<'_>,
    metric: &ComparisonMetric,
    kind: usize,
) -> Result<Vec<MetricRow>, Refusal> {
    let samples = pair.passes().each_ref().map(|passes| peaks(passes, kind));
    Ok(ratio_row(pair, metric, None, samples).into_iter().collect())
}

/// The peak of each sequence, in either phase.
fn peaks(passes: &HashMap<(u32, bool), Passes>, kind: usize) -> Vec<(u32, f64)> {
    let mut found: HashMap<u32, u64> = HashMap::new();
    for ((sequence, _), passes) in passes {
        let peak = found.entry(*sequence).or_default();
        *peak = (*peak).max(passes.memory[kind]);
    }
    let recorded = found.into_iter().filter(|(_, bytes)| *bytes > 0);
    recorded.map(|(sequence, bytes)| (sequence, bytes as f64)).collect()
}
