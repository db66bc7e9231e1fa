//! A result as JSON: what `gate` and `history` read, with all raw samples; labels, and a summary of each row
//! for those who do not want to compute one. A `.json` file stays one document: an array from the second result on.

use anyhow::Context;
use serde_json::{Deserializer, Map, Value, json};

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

/// The results of a JSON file, one after the other or in an array, without that of `id`, and one more.
pub(super) fn joined(held: &str, id: &str, new: &str) -> anyhow::Result<String> {
    let mut all = Vec::new();
    let between = |c: char| c.is_whitespace() || "[,]".contains(c);
    let mut rest = held.trim_start_matches(between);
    while !rest.is_empty() {
        let mut values = Deserializer::from_str(rest).into_iter::<Value>();
        let value = values.next().context("the file ended")?;
        let value = value.context("the file holds something else by now")?;
        // As it was written, to the last digit.
        let (text, after) = rest.split_at(values.byte_offset());
        if value["id"] != id {
            all.push(text);
        }
        rest = after.trim_start_matches(between);
    }
    all.push(new.trim_end());
    Ok(match &all[..] {
        [one] => format!("{one}\n"),
        _ => format!("[\n{}\n]\n", all.join(",\n")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_document_whatever_there_was() {
        let (a, b, c) = (r#"{"id": "a", "x": 0.10}"#, r#"{"id":"b","y":[1,{}]}"#, r#"{"id":"c"}"#);
        let one = joined("", "a", a).unwrap();
        assert_eq!(one, format!("{a}\n"));
        let two = joined(&one, "b", &format!("{b}\n")).unwrap();
        assert_eq!(two, format!("[\n{a},\n{b}\n]\n"));
        let three = joined(&two, "c", c).unwrap();
        assert_eq!(three, format!("[\n{a},\n{b},\n{c}\n]\n"));
        // As earlier versions appended, and as another program laid it out.
        assert_eq!(joined(&format!("{a}\n{b}\n"), "c", c).unwrap(), three);
        assert_eq!(joined(&format!("[{a} , {b}]"), "c", c).unwrap(), three);
        // The result itself, once more.
        assert_eq!(joined(&three, "c", c).unwrap(), three);
        assert_eq!(joined(&one, "a", a).unwrap(), one);
        assert!(joined("{} nonsense", "a", a).is_err());
    }
}
