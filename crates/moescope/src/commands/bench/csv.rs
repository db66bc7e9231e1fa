//! A result as CSV: a line per row, with all conditions in every line.

use moescope_trace::bench::{BenchRow, Configuration};
use serde_json::Value;

use super::{Printed, columns::COLUMNS, conditions, summary::Summary};
use crate::ui;

/// The cells of a row that say what it measured, by name.
fn configuration(configuration: &Configuration) -> Vec<(String, String)> {
    let Configuration { workload, prompt, generate, depth, batch } = configuration;
    let sizes = [("prompt", prompt), ("generate", generate), ("depth", depth), ("batch", batch)];
    let sizes = sizes.into_iter().map(|(name, n)| (name.into(), n.to_string()));
    std::iter::once(("workload".into(), workload.clone())).chain(sizes).collect()
}

/// The cells that are the same in all rows, by name.
fn shared(printed: &Printed<'_>) -> Vec<(String, String)> {
    let result = printed.result;
    let own = [
        ("id", result.id.clone()),
        ("created_at", result.created_at.clone()),
        ("model", result.fingerprint.model.name.clone()),
        ("labels", printed.labels.join("; ")),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
    let conditions = conditions::all(printed).into_iter();
    own.chain(conditions.map(|(name, value)| (column(name), value))).collect()
}

/// The name of a column: `CPU governor` is `cpu_governor`.
fn column(name: &str) -> String {
    name.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

fn names(printed: &Printed<'_>) -> Vec<String> {
    let row = Configuration { workload: "".into(), prompt: 0, generate: 0, depth: 0, batch: 0 };
    let conditions = shared(printed).into_iter().chain(configuration(&row)).map(|(name, _)| name);
    let columns = COLUMNS.iter().map(|column| column.name.to_owned());
    conditions.chain(columns).chain(["error".into()]).collect()
}

/// The first line.
pub(super) fn header(printed: &Printed<'_>) -> String {
    names(printed).join(",")
}

pub(super) fn render(printed: &Printed<'_>) -> String {
    let names = names(printed);
    ui::csv(&names.iter().map(String::as_str).collect::<Vec<_>>(), &lines(printed))
}

/// All lines but the first.
pub(super) fn rows(printed: &Printed<'_>) -> String {
    let all = render(printed);
    all.split_once('\n').map(|(_, rows)| rows.to_owned()).unwrap_or_default()
}

fn lines(printed: &Printed<'_>) -> Vec<Vec<String>> {
    let shared = shared(printed);
    let line = |row: &BenchRow| {
        let summary = Summary::of(row, printed);
        let conditions = shared.iter().cloned().chain(configuration(&row.configuration));
        let mut cells: Vec<String> = conditions.map(|(_, value)| value).collect();
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
