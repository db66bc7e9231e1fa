//! Measurements over time: what goes into a history, and where its series change.

use moescope_trace::history::{Entry, Value};
use moescope_trace::manifest::labels;

use crate::gate::{Evidence, PROMPT_BYTES, Row, prompt_bytes};
use crate::stats::{Change, ChangeOptions, changes, quantile};

/// One metric of one row under the same conditions, over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Trend {
    /// What was measured.
    pub row: String,
    /// The metric.
    pub metric: String,
    /// Its unit.
    pub unit: String,
    /// What values depend on besides the program.
    pub conditions: String,
    /// Values, oldest first.
    pub points: Vec<Point>,
    /// Where they change; see [`changes`].
    pub changes: Vec<Change>,
}

/// One value of a trend.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// When it was measured.
    pub measured_at: String,
    /// The commit, where known.
    pub commit: Option<String>,
    /// The value.
    pub value: f64,
    /// First and third quartile of its samples.
    pub quartiles: Option<(f64, f64)>,
}

impl Trend {
    /// Mean of the values from one change to the next; `at` is an index of [`Trend::points`].
    pub fn level(&self, at: usize) -> f64 {
        let start = self.changes.iter().rev().map(|change| change.index).find(|&start| start <= at);
        let end = self.changes.iter().map(|change| change.index).find(|&end| end > at);
        let part = &self.points[start.unwrap_or(0)..end.unwrap_or(self.points.len())];
        part.iter().map(|point| point.value).sum::<f64>() / part.len() as f64
    }

    /// The level after a change over the level before it.
    pub fn ratio(&self, change: &Change) -> f64 {
        self.level(change.index) / self.level(change.index - 1)
    }
}

/// A measurement as a history keeps it: speeds in tokens per second, energy and the facts.
pub fn entry(evidence: &Evidence, id: &str, measured_at: &str) -> Entry {
    // Random weights, software adapters, injected faults: numbers that need a label are a series of their own,
    // which says so wherever it is shown, and never points among others.
    let labels = labels(&evidence.fingerprint.model, &evidence.fingerprint.device);
    let mut workloads: Vec<&str> =
        evidence.rows.iter().filter_map(|row| row.workload.as_deref()).collect();
    workloads.dedup();
    let workload = (!workloads.is_empty()).then(|| format!("workload {}", workloads.join("+")));
    let conditions = std::iter::once(evidence.fingerprint.identity())
        .chain(evidence.task.clone())
        .chain(workload)
        .chain(labels.into_iter().map(str::to_owned));
    Entry {
        id: id.to_owned(),
        measured_at: measured_at.to_owned(),
        commit: evidence.fingerprint.git_commit.clone(),
        conditions: conditions.collect::<Vec<_>>().join("; "),
        values: evidence.rows.iter().flat_map(values).collect(),
    }
}

fn values(row: &Row) -> Vec<Value> {
    let facts = &row.facts;
    let wide = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
    let counted = [
        ("balance", "ratio", facts.load_variation),
        ("distinct_experts", "experts", facts.distinct_experts),
        ("peak_bytes", "bytes", wide(facts.peak_bytes_in_use)),
        ("peak_bytes_reserved", "bytes", wide(facts.peak_bytes_reserved)),
        // Depends on what ran before: shown, and never judged by the gate.
        ("peak_rss", "bytes", wide(facts.peak_rss_bytes)),
        ("bytes_per_token", "bytes", facts.bytes_per_token),
        (PROMPT_BYTES, "bytes", prompt_bytes(facts)),
        ("dispatches", "dispatches", facts.dispatches),
    ];
    let value = |metric: &str, unit: &str, value, quartiles, samples| Value {
        row: row.name.clone(),
        metric: metric.to_owned(),
        unit: unit.to_owned(),
        value,
        quartiles,
        samples,
    };
    let sampled = |metric: &str, unit: &str, mut samples: Vec<f64>| {
        samples.sort_unstable_by(f64::total_cmp);
        let at = |share| quantile(&samples, share);
        value(metric, unit, at(0.5), Some((at(0.25), at(0.75))), samples.len() as u32)
    };
    let speeds = row.times.iter().map(|time| {
        let rates = time.samples.iter().map(|(_, ns)| 1e9 / ns).collect();
        sampled(time.name, "tokens/s", rates)
    });
    let energy =
        (!row.joules.is_empty()).then(|| sampled("joules_per_token", "joules", row.joules.clone()));
    let facts = counted
        .into_iter()
        .filter_map(|(metric, unit, number)| Some(value(metric, unit, number?, None, 1)));
    speeds.chain(energy).chain(facts).collect()
}

/// The trends of a history, in order of first appearance, with their changes.
pub fn trends(entries: &[Entry], options: &ChangeOptions) -> Vec<Trend> {
    let mut trends: Vec<Trend> = Vec::new();
    let mut at_of = std::collections::HashMap::new();
    for entry in entries {
        for value in &entry.values {
            let key = (&entry.conditions, &value.row, &value.metric);
            let at = *at_of.entry(key).or_insert_with(|| {
                trends.push(Trend {
                    row: value.row.clone(),
                    metric: value.metric.clone(),
                    unit: value.unit.clone(),
                    conditions: entry.conditions.clone(),
                    points: Vec::new(),
                    changes: Vec::new(),
                });
                trends.len() - 1
            });
            trends[at].points.push(Point {
                measured_at: entry.measured_at.clone(),
                commit: entry.commit.clone(),
                value: value.value,
                quartiles: value.quartiles,
            });
        }
    }
    for trend in &mut trends {
        let values: Vec<f64> = trend.points.iter().map(|point| point.value).collect();
        trend.changes = changes(&values, options);
    }
    trends
}
