//! The most device memory that was taken from the device.

use super::shared::memory;
use crate::metric::{Group, Metric, Need};

/// Rows: overall; phase, if the run has both. No interval: more sequences can only raise a peak.
pub(crate) const PEAK_BYTES_RESERVED: Metric = Metric {
    name: "peak_bytes_reserved",
    title: "Peak device memory reserved",
    group: Group::Speed,
    unit: "bytes",
    formula: "largest bytes_reserved after a forward pass",
    chance: "",
    source: "Burn's memory pools: what the allocator took from the device",
    needs: &[Need::BytesReserved],
    compute: |study| memory::peaks(study, &PEAK_BYTES_RESERVED, &study.data.steps.bytes_reserved),
};
