//! A result as CSV: a line per row, with all conditions in every line.

use moescope_trace::bench::BenchRow;
use serde_json::Value;

use super::{Printed, columns::COLUMNS, summary::Summary};
use crate::ui;

/// A column that says under which conditions a row was measured.
type Condition = (&'static str, fn(&Printed<'_>, &BenchRow) -> String);

const CONDITIONS: &[Condition] = &[
    ("id", |p, _| p.result.id.clone()),
    ("created_at", |p, _| p.result.created_at.clone()),
    ("git_commit", |p, _| p.result.fingerprint.git_commit.clone().unwrap_or_default()),
    ("model", |p, _| p.result.fingerprint.model.name.clone()),
    ("labels", |p, _| p.labels.join("; ")),
    ("weights_hash", |p, _| p.result.fingerprint.model.weights_hash.clone()),
    ("dtype", |p, _| p.result.fingerprint.model.dtype.clone()),
    ("moe_impl", |p, _| p.result.fingerprint.moe_impl.clone()),
    ("backend", |p, _| p.result.fingerprint.device.backend.clone()),
    ("device", |p, _| p.result.fingerprint.device.adapter.clone()),
    ("driver", |p, _| p.result.fingerprint.device.driver.clone().unwrap_or_default()),
    ("workload", |_, row| row.configuration.workload.clone()),
    ("prompt", |_, row| row.configuration.prompt.to_string()),
    ("generate", |_, row| row.configuration.generate.to_string()),
    ("depth", |_, row| row.configuration.depth.to_string()),
    ("batch", |_, row| row.configuration.batch.to_string()),
];

fn names() -> Vec<&'static str> {
    let conditions = CONDITIONS.iter().map(|(name, _)| *name);
    conditions.chain(COLUMNS.iter().map(|column| column.name)).chain(["error"]).collect()
}

/// The first line.
pub(super) fn header() -> String {
    names().join(",")
}

pub(super) fn render(printed: &Printed<'_>) -> String {
    ui::csv(&names(), &lines(printed))
}

/// All lines but the first.
pub(super) fn rows(printed: &Printed<'_>) -> String {
    let all = render(printed);
    all.split_once('\n').map(|(_, rows)| rows.to_owned()).unwrap_or_default()
}

fn lines(printed: &Printed<'_>) -> Vec<Vec<String>> {
    let line = |row: &BenchRow| {
        let summary = Summary::of(row, printed);
        let mut cells: Vec<String> = CONDITIONS.iter().map(|(_, of)| of(printed, row)).collect();
        cells.extend(COLUMNS.iter().map(|column| match (column.value)(row, &summary) {
            Some(Value::String(text)) => text,
            Some(value) => value.to_string(),
            None => String::new(),
        }));
        cells.push(row.error.clone().unwrap_or_default());
        cells
    };
    printed.result.rows.iter().map(line).collect()
}
