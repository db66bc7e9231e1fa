//! The most memory a run held.

use crate::metric::Metric;
use crate::row::MetricRow;
use crate::study::{Scope, Study};

use moescope_trace::Phase;

/// The largest value of a column of passes.
pub(crate) fn peaks(study: &Study<'_>, metric: &Metric, column: &[Option<u64>]) -> Vec<MetricRow> {
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
