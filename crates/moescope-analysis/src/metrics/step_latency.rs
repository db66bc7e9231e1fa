//! How long forward passes take, as a distribution.

use moescope_trace::Phase;

use super::shared::{percentiles, step_groups::step_groups};
use crate::metric::{Group, Metric, Need};
use crate::row::MetricRow;
use crate::study::Study;

/// Rows: phase (always named) x percentile (50, 95, 99). A prefill pass is as long as its prompt;
/// a decode pass is one token per sequence. Interval: bootstrap over sequences.
pub(crate) const STEP_LATENCY: Metric = Metric {
    name: "step_latency",
    title: "Latency of forward passes",
    group: Group::Speed,
    unit: "ns",
    formula: "smallest duration that at least 50/95/99 % of the passes of the phase do not exceed",
    chance: "",
    source: "Nearest-rank percentile: always a duration that was measured",
    needs: &[Need::Times],
    compute,
};

fn compute(study: &Study<'_>) -> Vec<MetricRow> {
    let steps = &study.data.steps;
    let groups = step_groups(study);
    let of_phase = |phase| {
        let passes = (0..steps.rows())
            .filter(|&step| steps.phase[step] == phase)
            .map(|step| (steps.duration_ns[step], groups[step]))
            .collect();
        percentiles::rows(study, &STEP_LATENCY, phase, passes)
    };
    [Phase::Prefill, Phase::Decode].into_iter().flat_map(of_phase).collect()
}
