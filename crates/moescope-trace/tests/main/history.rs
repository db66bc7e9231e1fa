//! Histories: measurements come back in order, and what is no history is refused.

use moescope_trace::history::{Entry, Value, add, read};

fn entry(id: &str, measured_at: &str, commit: Option<&str>) -> Entry {
    let value = |row: &str, metric: &str, value, quartiles| Value {
        row: row.into(),
        metric: metric.into(),
        unit: "tokens/s".into(),
        value,
        quartiles,
        samples: 5,
    };
    Entry {
        id: id.into(),
        measured_at: measured_at.into(),
        commit: commit.map(str::to_owned),
        conditions: "dtype=f32; device=cpu".into(),
        values: vec![
            value("text pp8 b1", "prefill", 100.5, Some((99.0, 102.0))),
            value("text pp8 b1", "decode", 10.25, None),
        ],
    }
}

#[test]
fn measurements_come_back_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let history = dir.path().join("a").join("history[1]");
    let newer = entry("b/../x", "2026-07-02T00:00:00Z", Some("abc"));
    let older = entry("a", "2026-07-01T00:00:00Z", None);
    let path = add(&history, &newer).unwrap();
    assert_eq!(path.parent(), Some(history.as_path()), "an id is no path");
    add(&history, &older).unwrap();
    assert_eq!(read(&history).unwrap(), [older.clone(), newer]);
    let error = add(&history, &older).unwrap_err().to_string();
    assert!(error.contains("exists already"), "{error}");
}

#[test]
fn what_is_no_history_is_named() {
    let dir = tempfile::tempdir().unwrap();
    assert!(read(&dir.path().join("none")).unwrap_err().to_string().contains("none"));
    assert!(read(dir.path()).unwrap().is_empty());
    std::fs::write(dir.path().join("x.parquet"), "not parquet").unwrap();
    let error = read(dir.path()).unwrap_err().to_string();
    assert!(error.contains("x.parquet") && error.contains("damaged"), "{error}");
    std::fs::remove_file(dir.path().join("x.parquet")).unwrap();
    let mut bad = entry("a", "2026-07-01T00:00:00Z", None);
    bad.values[0].value = f64::NAN;
    add(dir.path(), &bad).unwrap();
    let error = read(dir.path()).unwrap_err().to_string();
    assert!(error.contains("`value`") && error.contains("not finite"), "{error}");
}
