//! The most memory a run held.

use crate::metric::{Metric, Need};
use crate::row::MetricRow;
use crate::study::{Scope, Study};

use moescope_trace::Phase;

/// Rows of each of the three: overall; phase, if the run has both.
pub(crate) const PEAK_BYTES_IN_USE: Metric = Metric {
    name: "peak_bytes_in_use",
    title: "Peak device memory in use",
    unit: "bytes",
    formula: "largest bytes_in_use after a forward pass",
    chance: "",
    source: "Burn's memory pools; peaks inside a pass are not seen",
    needs: &[Need::BytesInUse],
    compute: |study| peaks(study, &PEAK_BYTES_IN_USE, &study.data.steps.bytes_in_use),
};

pub(crate) const PEAK_BYTES_RESERVED: Metric = Metric {
    name: "peak_bytes_reserved",
    title: "Peak device memory reserved",
    unit: "bytes",
    formula: "largest bytes_reserved after a forward pass",
    chance: "",
    source: "Burn's memory pools: what the allocator took from the device",
    needs: &[Need::BytesReserved],
    compute: |study| peaks(study, &PEAK_BYTES_RESERVED, &study.data.steps.bytes_reserved),
};

pub(crate) const PEAK_RSS_BYTES: Metric = Metric {
    name: "peak_rss_bytes",
    title: "Peak process memory",
    unit: "bytes",
    formula: "largest rss_bytes after a forward pass",
    chance: "",
    source: "Resident set size as the operating system reports it",
    needs: &[Need::Rss],
    compute: |study| peaks(study, &PEAK_RSS_BYTES, &study.data.steps.rss_bytes),
};

fn peaks(study: &Study<'_>, metric: &Metric, column: &[Option<u64>]) -> Vec<MetricRow> {
    let phases = &study.data.steps.phase;
    let peak = |wanted: Option<Phase>| {
        std::iter::zip(column, phases)
            .filter(|(_, phase)| wanted.is_none_or(|wanted| wanted == **phase))
            .filter_map(|(bytes, _)| *bytes)
            .max()
    };
    let of = |phase: Option<Phase>| {
        let scope = Scope { phase, ..study.overall().clone() };
        let row = study.row(metric.name, metric.unit, &scope);
        peak(phase).map(|bytes| MetricRow { value: bytes as f64, ..row })
    };
    let mut rows: Vec<MetricRow> = of(None).into_iter().collect();
    let parts: Vec<MetricRow> =
        [Phase::Prefill, Phase::Decode].into_iter().filter_map(|phase| of(Some(phase))).collect();
    if parts.len() == 2 {
        rows.extend(parts);
    }
    rows
}
