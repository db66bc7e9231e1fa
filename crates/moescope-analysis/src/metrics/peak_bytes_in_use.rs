//! The most device memory that was in use.

use super::shared::memory;
use crate::metric::{Group, Metric, Need};

/// Rows: overall; phase, if the run has both. No interval: more sequences can only raise a peak.
pub(crate) const PEAK_BYTES_IN_USE: Metric = Metric {
    name: "peak_bytes_in_use",
    title: "Peak device memory in use",
    group: Group::Speed,
    unit: "bytes",
    formula: "largest bytes_in_use after a forward pass",
    chance: "",
    source: "Burn's memory pools; peaks inside a pass are not seen",
    needs: &[Need::BytesInUse],
    compute: |study| memory::peaks(study, &PEAK_BYTES_IN_USE, &study.data.steps.bytes_in_use),
};
