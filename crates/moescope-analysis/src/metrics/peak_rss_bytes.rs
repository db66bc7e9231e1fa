//! The most memory that the process held.

use super::shared::memory;
use crate::metric::{Group, Metric, Need};

/// Rows: overall; phase, if the run has both. No interval: more sequences can only raise a peak.
pub(crate) const PEAK_RSS_BYTES: Metric = Metric {
    name: "peak_rss_bytes",
    title: "Peak process memory",
    group: Group::Speed,
    unit: "bytes",
    formula: "largest rss_bytes after a forward pass",
    chance: "",
    source: "Resident set size as the operating system reports it",
    needs: &[Need::Rss],
    compute: |study| memory::peaks(study, &PEAK_RSS_BYTES, &study.data.steps.rss_bytes),
};
