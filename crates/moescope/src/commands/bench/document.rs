//! A result as JSON: what `gate` and `history` read, with all raw samples; labels, and a summary of each row
//! for those who do not want to compute one.

use serde_json::{Map, Value, json};

use super::{Printed, columns::COLUMNS, summary::Summary};

pub(super) fn of(printed: &Printed<'_>) -> anyhow::Result<Value> {
    let mut document = serde_json::to_value(printed.result)?;
    document["labels"] = json!(printed.labels);
    for (at, row) in printed.result.rows.iter().enumerate() {
        let summary = Summary::of(row, printed);
        let values = COLUMNS.iter().filter_map(|column| {
            let value = (column.value)(row, &summary)?;
            Some((column.name.to_owned(), json!(value)))
        });
        document["rows"][at]["summary"] = Value::Object(values.collect::<Map<_, _>>());
    }
    Ok(document)
}
