//! A history: what was measured, time after time, in a directory of Parquet files.
//!
//! ```text
//! HISTORY/
//!   2026-07-01T12-00-00Z-4f2a....parquet    one row per metric of one measurement
//! ```
//!
//! Each file is one measurement, whole in itself and moved into place when it is written, so that two
//! jobs can add at once and a directory can be put together from two.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use polars::prelude::*;

use crate::error::TraceError;
use crate::files::write_whole;
use crate::frame::to_parquet;
use crate::part::Part;
use crate::schema::{Kind, TableSpec, column, nullable};

/// The schema this build writes and the only one it reads.
pub const HISTORY_SCHEMA_VERSION: u32 = 1;

/// The columns of a history.
pub const HISTORY: TableSpec = TableSpec {
    folder: "history",
    columns: &[
        column("schema_version", Kind::U32),
        column("id", Kind::Text),
        column("measured_at", Kind::Text),
        nullable("commit", Kind::Text),
        column("conditions", Kind::Text),
        column("row", Kind::Text),
        column("metric", Kind::Text),
        column("unit", Kind::Text),
        column("value", Kind::F64),
        nullable("low", Kind::F64),
        nullable("high", Kind::F64),
        column("samples", Kind::U32),
    ],
};

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Id of the bench result or run.
    pub id: String,
    /// When it was measured, UTC, RFC 3339.
    pub measured_at: String,
    /// Commit that was measured, where known.
    pub commit: Option<String>,
    /// What values depend on besides the program
    /// ([`Fingerprint::identity`](crate::Fingerprint::identity)): only equal ones compare.
    pub conditions: String,
    /// Its metrics.
    pub values: Vec<Value>,
}

/// One metric of a measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// What was measured: `text pp128 tg64 b1`, `all prompts`.
    pub row: String,
    /// The metric: `decode`, `peak_bytes`.
    pub metric: String,
    /// Its unit.
    pub unit: String,
    /// The value, a median where there are samples.
    pub value: f64,
    /// First and third quartile of the samples, where there are some.
    pub quartiles: Option<(f64, f64)>,
    /// Number of samples, 1 for what is counted.
    pub samples: u32,
}

/// Adds a measurement; the directory is made if it is not there. Returns the file.
///
/// # Errors
///
/// [`TraceError::OutputExists`] where the history has this measurement already; [`TraceError::Io`].
pub fn add(directory: &Path, entry: &Entry) -> Result<PathBuf, TraceError> {
    fs::create_dir_all(directory).map_err(|e| TraceError::io(directory, "create", e))?;
    // Ids and times may come from elsewhere: only letters and digits make it into a file name.
    let plain = |text: &str| -> String {
        let keep = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        text.chars().take(40).map(keep).collect()
    };
    let name = format!("{}-{}.parquet", plain(&entry.measured_at), plain(&entry.id));
    let path = directory.join(&name);
    if path.exists() {
        return Err(TraceError::OutputExists { path });
    }
    let mut frame =
        frame(entry).map_err(|source| TraceError::polars(&path, "build table", source))?;
    let bytes = to_parquet(&mut frame).map_err(|e| TraceError::polars(&path, "encode", e))?;
    write_whole(directory, &name, &bytes)?;
    Ok(path)
}

fn frame(entry: &Entry) -> PolarsResult<DataFrame> {
    let values = &entry.values;
    let rows = values.len();
    let text = |name: &str, of: &dyn Fn(&Value) -> String| {
        let texts: Vec<String> = values.iter().map(of).collect();
        Column::new(name.into(), texts)
    };
    let number = |name: &str, of: &dyn Fn(&Value) -> Option<f64>| {
        Column::new(name.into(), values.iter().map(of).collect::<Vec<_>>())
    };
    let columns = vec![
        Column::new("schema_version".into(), vec![HISTORY_SCHEMA_VERSION; rows]),
        Column::new("id".into(), vec![entry.id.clone(); rows]),
        Column::new("measured_at".into(), vec![entry.measured_at.clone(); rows]),
        Column::new("commit".into(), vec![entry.commit.clone(); rows]),
        Column::new("conditions".into(), vec![entry.conditions.clone(); rows]),
        text("row", &|value| value.row.clone()),
        text("metric", &|value| value.metric.clone()),
        text("unit", &|value| value.unit.clone()),
        number("value", &|value| Some(value.value)),
        number("low", &|value| value.quartiles.map(|(low, _)| low)),
        number("high", &|value| value.quartiles.map(|(_, high)| high)),
        Column::new("samples".into(), values.iter().map(|v| v.samples).collect::<Vec<_>>()),
    ];
    DataFrame::new(rows, columns)
}

/// Reads all measurements of a history, oldest first.
///
/// # Errors
///
/// The directory can't be listed, or a `.parquet` file in it is not of a history, is damaged or of
/// another schema.
pub fn read(directory: &Path) -> Result<Vec<Entry>, TraceError> {
    let listed = fs::read_dir(directory).map_err(|e| TraceError::io(directory, "list", e))?;
    let mut paths = BTreeSet::new();
    for file in listed {
        let path = file.map_err(|e| TraceError::io(directory, "list", e))?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && path.extension().is_some_and(|extension| extension == "parquet") {
            paths.insert(path);
        }
    }
    let mut entries = Vec::new();
    for path in paths {
        let part = Part::open(&path, &HISTORY)?;
        let names: Vec<&str> = HISTORY.columns.iter().map(|column| column.name).collect();
        let first = entries.len();
        part.read(&names, 64, |frame| entries_of(&path, frame, first, &mut entries))?;
    }
    entries.sort_by(|a: &Entry, b: &Entry| (&a.measured_at, &a.id).cmp(&(&b.measured_at, &b.id)));
    Ok(entries)
}

/// Adds the measurements of a file, those from `first` on.
fn entries_of(
    path: &Path,
    frame: &DataFrame,
    first: usize,
    entries: &mut Vec<Entry>,
) -> Result<(), TraceError> {
    let bad = |column: &'static str, problem: &str| TraceError::BadValue {
        part: path.to_path_buf(),
        column,
        problem: problem.to_owned(),
    };
    let failed = |source| TraceError::polars(path, "read", source);
    let text = |column: &'static str| -> Result<Vec<Option<String>>, TraceError> {
        let values = frame.column(column).and_then(|values| values.str().cloned());
        let values = values.map_err(failed)?;
        Ok(values.iter().map(|text| text.map(str::to_owned)).collect())
    };
    let number = |column: &'static str| -> Result<Vec<Option<f64>>, TraceError> {
        let values = frame.column(column).and_then(|values| values.f64().cloned());
        Ok(values.map_err(failed)?.iter().collect())
    };
    let whole = |column: &'static str| -> Result<Vec<u32>, TraceError> {
        let values = frame.column(column).and_then(|values| values.u32().cloned());
        let values = values.map_err(failed)?;
        values.iter().collect::<Option<_>>().ok_or_else(|| bad(column, "null values"))
    };
    if let Some(found) = whole("schema_version")?.iter().find(|v| **v != HISTORY_SCHEMA_VERSION) {
        return Err(TraceError::UnsupportedSchema {
            path: path.to_path_buf(),
            found: u64::from(*found),
            supported: HISTORY_SCHEMA_VERSION,
        });
    }
    let (ids, times, commits) = (text("id")?, text("measured_at")?, text("commit")?);
    let (conditions, rows, metrics) = (text("conditions")?, text("row")?, text("metric")?);
    let (units, samples) = (text("unit")?, whole("samples")?);
    let (values, lows, highs) = (number("value")?, number("low")?, number("high")?);
    let given = |column: &'static str, value: &Option<String>| {
        value.clone().ok_or_else(|| bad(column, "null values, expected text"))
    };
    for at in 0..frame.height() {
        let id = given("id", &ids[at])?;
        if entries[first..].last().is_none_or(|entry| entry.id != id) {
            entries.push(Entry {
                id,
                measured_at: given("measured_at", &times[at])?,
                commit: commits[at].clone(),
                conditions: given("conditions", &conditions[at])?,
                values: Vec::new(),
            });
        }
        let value = values[at].filter(|value| value.is_finite());
        let value = Value {
            row: given("row", &rows[at])?,
            metric: given("metric", &metrics[at])?,
            unit: given("unit", &units[at])?,
            value: value.ok_or_else(|| bad("value", "null or not finite"))?,
            quartiles: lows[at].zip(highs[at]),
            samples: samples[at],
        };
        // Just pushed, or there before.
        if let Some(entry) = entries.last_mut() {
            entry.values.push(value);
        }
    }
    Ok(())
}
