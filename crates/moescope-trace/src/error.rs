//! What can go wrong with a run directory, said with the path or column, what was expected, what was
//! found, and what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polars::prelude::PolarsError;
use thiserror::Error;

/// An error while a run is written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The output is there already.
    #[error("{path} exists already; choose another output, or pass --force to replace a run")]
    OutputExists {
        /// The output directory.
        path: PathBuf,
    },

    /// `--force` was given for something that is not a run.
    #[error(
        "--force replaces only a run directory or an empty one, and {path} is neither: {reason}; \
         choose another output, or remove it yourself"
    )]
    WillNotReplace {
        /// The output path.
        path: PathBuf,
        /// What it is instead.
        reason: String,
    },

    /// The path given as a run is something else.
    #[error(
        "{path} is not a run directory: {reason}; expected a directory with a manifest.json, as \
         `moescope run` and `moescope import` write it"
    )]
    NotARun {
        /// The path given.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },

    /// A run, bench result or history was written with another layout.
    #[error(
        "{path}: written with schema version {found}, this moescope reads version {supported}; \
         use a moescope that reads version {found}, or record it again"
    )]
    UnsupportedSchema {
        /// The file.
        path: PathBuf,
        /// Version in it.
        found: u64,
        /// The only version this build reads.
        supported: u32,
    },

    /// The manifest is not JSON, or lacks a field.
    #[error("{path} is not a valid manifest: {reason}; copy the run again, or record it again")]
    BrokenManifest {
        /// The manifest.
        path: PathBuf,
        /// What the JSON reader says, with line and column.
        reason: String,
    },

    /// A column that every part of the table has is not there.
    #[error("{part}: column `{column}` ({expected}) is missing; the part has {found}")]
    MissingColumn {
        /// The part.
        part: PathBuf,
        /// The column.
        column: &'static str,
        /// Its type.
        expected: String,
        /// The columns that are there.
        found: String,
    },

    /// A column has another type than the schema says.
    #[error("{part}: column `{column}` is {found}, expected {expected}; write it with that type")]
    WrongType {
        /// The part.
        part: PathBuf,
        /// The column.
        column: &'static str,
        /// Type of schema version 1.
        expected: String,
        /// Type in the file.
        found: String,
    },

    /// A column has the right type and a value that cannot be.
    #[error("{part}: column `{column}`: {problem}")]
    BadValue {
        /// The part.
        part: PathBuf,
        /// The column.
        column: &'static str,
        /// What was expected and found.
        problem: String,
    },

    /// A part is not Parquet, is cut off, or holds damaged pages.
    #[error(
        "{part} cannot be read as Parquet, it is truncated or damaged: {reason}; copy the run \
         again, or record it again"
    )]
    UnreadablePart {
        /// The part.
        part: PathBuf,
        /// What the Parquet reader says.
        reason: String,
    },

    /// A complete run lacks a part in the middle.
    #[error(
        "{folder}: the run is complete, yet part {missing:05} is missing while later parts are \
         there; copy the run again"
    )]
    MissingPart {
        /// The table's folder.
        folder: PathBuf,
        /// Number of the first part that is not there.
        missing: u32,
    },

    /// The tables of a run contradict each other or the manifest.
    #[error("{path}: {problem}")]
    Inconsistent {
        /// The run.
        path: PathBuf,
        /// What contradicts what.
        problem: String,
    },

    /// A batch handed to the writer has columns of different lengths.
    #[error(
        "{table}: column `{column}` has {found} values, expected {expected}; every column of a \
         batch covers the same rows"
    )]
    ColumnLength {
        /// The table's folder name.
        table: &'static str,
        /// The column that differs.
        column: &'static str,
        /// Values it has.
        found: usize,
        /// Values the other columns call for.
        expected: usize,
    },

    /// A file given as a bench result is something else.
    #[error(
        "{path} is not a bench result: {reason}; expected JSON of the schema in the \
         documentation of moescope-trace's `bench`"
    )]
    NotABench {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },

    /// A bench result has a row that can't be used.
    #[error("{path}: row {row}: {problem}; measure it again")]
    BadBench {
        /// The file.
        path: PathBuf,
        /// The row's configuration.
        row: String,
        /// What is wrong with it.
        problem: String,
    },

    /// The operating system refused.
    #[error("cannot {action} {path}: {}", explain(source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, such as `write`.
        action: &'static str,
        /// What the operating system says.
        source: io::Error,
    },

    /// Polars failed where the data was sound.
    #[error("cannot {action} {path}: {source}")]
    Polars {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What polars says.
        source: PolarsError,
    },

    /// The writing thread failed earlier; this is its error.
    #[error("recording stopped: {0}")]
    Background(Arc<TraceError>),

    /// The writing thread panicked.
    #[error("the writer of {path} panicked ({message}); the parts written before are whole")]
    WriterPanicked {
        /// The run directory.
        path: PathBuf,
        /// The panic's message.
        message: String,
    },
}

impl TraceError {
    /// Wraps an I/O error with the path and what was tried.
    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        TraceError::Io { path: path.to_path_buf(), action, source }
    }

    pub(crate) fn polars(path: &Path, action: &'static str, source: PolarsError) -> Self {
        TraceError::Polars { path: path.to_path_buf(), action, source }
    }
}

/// An I/O error in words: the usual causes with their remedy, else what the system says.
fn explain(error: &io::Error) -> String {
    let text = match error.kind() {
        io::ErrorKind::StorageFull => "the disk is full; free some space or choose another output",
        io::ErrorKind::QuotaExceeded => "the disk quota is used up; free some space",
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only; choose another output",
        io::ErrorKind::PermissionDenied => "permission denied; check the owner and mode",
        io::ErrorKind::NotFound => "no such file or directory",
        io::ErrorKind::NotADirectory => "a file stands where a directory is needed in this path",
        _ => return error.to_string(),
    };
    text.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Full and read-only disks cannot be had in every test environment, so their text is tested here
    /// and the way there (a failing write surfaces as `Io` with the path) in the integration tests.
    #[test]
    fn io_errors_say_what_to_do() {
        let say =
            |kind| TraceError::io(Path::new("run/x"), "write", io::Error::from(kind)).to_string();
        assert_eq!(
            say(io::ErrorKind::StorageFull),
            "cannot write run/x: the disk is full; free some space or choose another output"
        );
        assert!(say(io::ErrorKind::ReadOnlyFilesystem).contains("read-only"));
        assert!(say(io::ErrorKind::PermissionDenied).contains("permission denied"));
    }

    /// The numbers Linux gives map to the kinds the texts hang on.
    #[cfg(target_os = "linux")]
    #[test]
    fn system_codes_map_to_the_texts() {
        let say =
            |code| TraceError::io(Path::new("p"), "write", io::Error::from_raw_os_error(code));
        assert!(say(28).to_string().contains("disk is full"));
        assert!(say(30).to_string().contains("read-only"));
        assert!(say(122).to_string().contains("quota"));
        assert!(say(20).to_string().contains("a file stands where a directory"));
    }
}
