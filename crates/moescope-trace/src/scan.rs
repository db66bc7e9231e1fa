//! A table as one lazy frame over its parts.

use polars::prelude::*;

use crate::error::TraceError;
use crate::part::Part;
use crate::schema::{ColumnSpec, Presence, TableSpec};

/// A lazy frame over `parts` in their order with the columns of `table`; an optional column is there if any
/// part has it, null where a part has not.
pub(crate) fn scan(table: &TableSpec, parts: &[Part]) -> Result<LazyFrame, TraceError> {
    let columns: Vec<&ColumnSpec> = table
        .columns
        .iter()
        .filter(|column| {
            column.presence != Presence::Optional || parts.iter().any(|part| part.has(column.name))
        })
        .collect();
    // Usually one group: a scan wants files with the same columns.
    let mut frames = Vec::new();
    for group in parts.chunk_by(Part::same_columns) {
        frames.push(scan_alike(group, &columns)?);
    }
    match frames.len() {
        0 => Ok(DataFrame::empty_with_schema(&table.schema()).lazy()),
        1 => Ok(frames.remove(0)),
        _ => concat(frames, UnionArgs::default())
            .map_err(|source| TraceError::polars(&parts[0].path, "scan", source)),
    }
}

fn scan_alike(parts: &[Part], columns: &[&ColumnSpec]) -> Result<LazyFrame, TraceError> {
    let first = &parts[0];
    let failed = |source| TraceError::polars(&first.path, "scan", source);
    let paths = parts
        .iter()
        .map(|part| PlRefPath::try_from_path(&part.path))
        .collect::<PolarsResult<Vec<_>>>()
        .map_err(failed)?;
    let arguments = ScanArgsParquet {
        // A run may lie in `runs/a[1]` or `runs/layer=3`: its path is a name, not a pattern.
        glob: false,
        hive_options: HiveOptions::new_disabled(),
        ..Default::default()
    };
    let frame = LazyFrame::scan_parquet_files(paths.into(), arguments).map_err(failed)?;
    let selection: Vec<Expr> = columns
        .iter()
        .map(|column| {
            if first.has(column.name) {
                col(column.name)
            } else {
                lit(NULL).cast(column.kind.dtype()).alias(column.name)
            }
        })
        .collect();
    Ok(frame.select(selection))
}
