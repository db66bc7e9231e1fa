//! One part of a table: opened, its columns checked against the schema, read group by group.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use polars::io::parquet::metadata::FileMetadataRef;
use polars::prelude::*;

use crate::background::panic_message;
use crate::error::TraceError;
use crate::schema::{ColumnSpec, Kind, Presence, TableSpec};

/// A part whose footer was read and whose columns have the types of schema version 1.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) path: PathBuf,
    metadata: FileMetadataRef,
    /// Every column of the file: name and type.
    columns: Vec<(String, ArrowDataType)>,
}

impl Part {
    /// Opens the part and checks the columns `table` names. Columns it does not name are left alone.
    pub(crate) fn open(path: &Path, table: &TableSpec) -> Result<Self, TraceError> {
        let file = File::open(path).map_err(|source| TraceError::io(path, "open", source))?;
        let (metadata, schema) = guarded(path, || {
            let mut reader = ParquetReader::new(file);
            let schema = reader.schema()?;
            Ok((reader.get_metadata()?.clone(), schema))
        })?;
        let columns = schema
            .iter_values()
            .map(|field| (field.name.to_string(), field.dtype().clone()))
            .collect();
        let part = Self { path: path.to_path_buf(), metadata, columns };
        for column in table.columns {
            part.check(column)?;
        }
        Ok(part)
    }

    fn check(&self, column: &ColumnSpec) -> Result<(), TraceError> {
        match self.dtype(column.name) {
            Some(found) if matches(column.kind, found) => Ok(()),
            Some(found) => Err(TraceError::WrongType {
                part: self.path.clone(),
                column: column.name,
                expected: column.kind.dtype().to_string(),
                found: describe(found),
            }),
            None if column.presence == Presence::Optional => Ok(()),
            None => Err(TraceError::MissingColumn {
                part: self.path.clone(),
                column: column.name,
                expected: column.kind.dtype().to_string(),
                found: self
                    .columns
                    .iter()
                    .map(|(name, _)| format!("`{name}`"))
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }

    fn dtype(&self, column: &str) -> Option<&ArrowDataType> {
        self.columns.iter().find(|(name, _)| name == column).map(|(_, dtype)| dtype)
    }

    /// Whether the file has this column.
    pub(crate) fn has(&self, column: &str) -> bool {
        self.dtype(column).is_some()
    }

    /// Whether the two files have the same columns in the same order.
    pub(crate) fn same_columns(&self, other: &Part) -> bool {
        self.columns == other.columns
    }

    /// Rows in the file.
    pub(crate) fn rows(&self) -> usize {
        self.metadata.num_rows
    }

    /// Reads `columns` of the file, `groups_at_once` row groups at a time, which bounds the memory held
    /// beside the caller's own. Columns the file does not have are left out.
    pub(crate) fn read<E: From<TraceError>>(
        &self,
        columns: &[&str],
        groups_at_once: usize,
        mut each: impl FnMut(&DataFrame) -> Result<(), E>,
    ) -> Result<(), E> {
        let columns: Vec<String> =
            columns.iter().filter(|name| self.has(name)).map(ToString::to_string).collect();
        let mut start = 0;
        for groups in self.metadata.row_groups.chunks(groups_at_once.max(1)) {
            let rows: usize = groups.iter().map(|group| group.num_rows()).sum();
            let file = File::open(&self.path)
                .map_err(|source| TraceError::io(&self.path, "open", source))?;
            let frame = guarded(&self.path, || {
                let mut reader = ParquetReader::new(file)
                    .with_columns(Some(columns.clone()))
                    .with_slice(Some((start, rows)))
                    // The one strategy that skips the groups outside the slice.
                    .read_parallel(ParallelStrategy::RowGroups);
                reader.set_metadata(self.metadata.clone());
                reader.finish()
            })?;
            // A damaged footer can promise more rows than the pages hold.
            if let Some(column) = frame.columns().iter().find(|column| column.len() != rows) {
                return Err(TraceError::UnreadablePart {
                    part: self.path.clone(),
                    reason: format!(
                        "column `{}` has {} rows, expected {rows}",
                        column.name(),
                        column.len()
                    ),
                }
                .into());
            }
            each(&frame)?;
            start += rows;
        }
        Ok(())
    }
}

/// Runs a polars reader and names the part if it fails. Some damaged pages make polars panic.
fn guarded<T>(path: &Path, read: impl FnOnce() -> PolarsResult<T>) -> Result<T, TraceError> {
    let reason = match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic_message(&*panic),
    };
    Err(TraceError::UnreadablePart { part: path.to_path_buf(), reason })
}

/// Whether a file's type holds what the schema asks for. The spellings of one logical type (32 or 64 bit
/// offsets, views) are equal; polars unifies them when it reads.
fn matches(kind: Kind, found: &ArrowDataType) -> bool {
    use ArrowDataType as Arrow;
    match (kind, found) {
        (Kind::U16, Arrow::UInt16)
        | (Kind::U32, Arrow::UInt32)
        | (Kind::U64, Arrow::UInt64)
        | (Kind::F32, Arrow::Float32)
        | (Kind::F64, Arrow::Float64)
        | (Kind::Text, Arrow::Utf8 | Arrow::LargeUtf8 | Arrow::Utf8View) => true,
        (Kind::ListU16, Arrow::List(field) | Arrow::LargeList(field)) => {
            matches(Kind::U16, field.dtype())
        }
        (Kind::ListF32, Arrow::List(field) | Arrow::LargeList(field)) => {
            matches(Kind::F32, field.dtype())
        }
        _ => false,
    }
}

/// A file's type in the words of [`Kind::dtype`].
fn describe(found: &ArrowDataType) -> String {
    use ArrowDataType as Arrow;
    match found {
        Arrow::List(field) | Arrow::LargeList(field) => {
            format!("list[{}]", describe(field.dtype()))
        }
        Arrow::Utf8 | Arrow::LargeUtf8 | Arrow::Utf8View => "str".to_string(),
        Arrow::UInt8 => "u8".to_string(),
        Arrow::UInt16 => "u16".to_string(),
        Arrow::UInt32 => "u32".to_string(),
        Arrow::UInt64 => "u64".to_string(),
        Arrow::Int8 => "i8".to_string(),
        Arrow::Int16 => "i16".to_string(),
        Arrow::Int32 => "i32".to_string(),
        Arrow::Int64 => "i64".to_string(),
        Arrow::Float32 => "f32".to_string(),
        Arrow::Float64 => "f64".to_string(),
        Arrow::Dictionary(..) => "a dictionary (categorical)".to_string(),
        other => format!("{other:?}"),
    }
}
