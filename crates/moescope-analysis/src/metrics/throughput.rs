//! Tokens per second.

use moescope_trace::Phase;

use super::shared::step_groups::step_groups;
use crate::metric::{Group, Metric, Need};
use crate::ratio::RatioSums;
use crate::row::MetricRow;
use crate::study::{Scope, Study};

/// Rows: phase (always named, `prefill` or `decode`; the two are not one number). Interval:
/// bootstrap over sequences.
pub(crate) const THROUGHPUT: Metric = Metric {
    name: "throughput",
    title: "Throughput",
    group: Group::Speed,
    unit: "tokens/s",
    formula: "tokens of the passes of a phase / wall time of those passes; prefill is pp, decode tg",
    chance: "",
    source: "llama-bench's pp and tg: tokenisation and sampling excluded, device synchronised",
    needs: &[Need::Times],
    compute,
};

fn compute(study: &Study<'_>) -> Vec<MetricRow> {
    let steps = &study.data.steps;
    let groups = step_groups(study);
    // Without knowing whose passes they are, all are one unit and there is nothing to resample.
    let known = groups.iter().all(Option::is_some);
    let mut sums = RatioSums::new(study.groups.len().max(1));
    for (step, group) in groups.iter().enumerate() {
        let seconds = steps.duration_ns[step] as f64 * 1e-9;
        let group = group.filter(|_| known).unwrap_or(0);
        sums.add(group, steps.phase[step], f64::from(steps.tokens[step]), seconds);
    }
    let mut rows = Vec::new();
    for phase in [Phase::Prefill, Phase::Decode] {
        let mut scope = Scope { phase: Some(phase), ..study.overall().clone() };
        if scope.units.is_empty() {
            scope.units.push(0);
        }
        if let Some((value, interval)) = sums.ratio(&scope, (0.0, f64::MAX)) {
            let row = study.row(THROUGHPUT.name, THROUGHPUT.unit, &scope);
            rows.push(MetricRow { value, interval, ..row });
        }
    }
    rows
}
