//! Rows of a long table for programs: the same columns in JSON and CSV, and as `moescope_analysis` writes
//! them to Parquet.

use moescope_analysis::MetricRow;
use serde_json::{Map, Value, json};

use crate::ui;

/// A row of a table: what comes before the metric (the names of runs), then the row; `words` is its index in
/// words.
pub(crate) fn values(names: &[Value], row: &MetricRow, words: Option<String>) -> Vec<Value> {
    let numbers = row.index.map(|index| index.numbers());
    let of_row = [
        json!(row.metric),
        json!(row.layer),
        json!(words),
        json!(row.index.map(|index| index.kind())),
        json!(numbers.map(|numbers| numbers.0)),
        json!(numbers.and_then(|numbers| numbers.1)),
        json!(row.domain),
        json!(row.phase),
        json!(row.value),
        json!(row.interval.map(|(low, _)| low)),
        json!(row.interval.map(|(_, high)| high)),
        json!(row.chance),
        json!(row.unit),
    ];
    names.iter().cloned().chain(of_row).collect()
}

/// A row as an object with a name for each column.
pub(crate) fn object(columns: &[&str], values: Vec<Value>) -> Value {
    let names = columns.iter().map(|name| (*name).to_owned());
    Value::Object(names.zip(values).collect::<Map<_, _>>())
}

/// Plain numbers and raw names: a file for other programs.
pub(crate) fn csv(columns: &[&str], rows: impl Iterator<Item = Vec<Value>>) -> String {
    let cells = |values: Vec<Value>| -> Vec<String> {
        values.iter().map(|value| cell(value, |x| x.to_string())).collect()
    };
    ui::csv(columns, rows.map(cells))
}

/// A value as a cell; nothing is an empty one.
pub(crate) fn cell(value: &Value, number: impl Fn(f64) -> String) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(n) if n.is_f64() => n.as_f64().map_or_else(String::new, number),
        other => other.to_string(),
    }
}
