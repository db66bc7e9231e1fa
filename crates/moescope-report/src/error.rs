//! What can go wrong while a report is made.

use std::io;
use std::path::PathBuf;

/// An error of this crate; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No run was given.
    #[error("no run to report on: expected at least one run directory, found none; name one")]
    NoRuns,
    /// A section was asked for that no report has.
    #[error("--sections {name}: expected names among {known}, found `{name}`")]
    UnknownSection {
        /// What was asked for.
        name: String,
        /// The sections there are.
        known: String,
    },
    /// The output directory holds something that is not a report.
    #[error(
        "{path} exists and is not a moescope report: expected a new, empty or report directory; \
         choose another directory or pass --force to write the report's files into it"
    )]
    OutputExists {
        /// The directory.
        path: PathBuf,
    },
    /// The output path is not a directory.
    #[error("{path} is a file: expected a directory for the report; choose another path with -o")]
    OutputIsFile {
        /// The path.
        path: PathBuf,
    },
    /// A file or directory could not be written or moved into place.
    #[error("cannot write {path}: {source}; check that the directory is writable and not full")]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// Why it could not.
        #[source]
        source: io::Error,
    },
    /// A figure could not be drawn or its image not written.
    #[error(
        "cannot draw figure `{figure}`: {message}; if the disk has space and the directory is \
         writable, this is a defect worth an issue with the run attached"
    )]
    Draw {
        /// Id of the figure.
        figure: &'static str,
        /// What the drawing library said.
        message: String,
    },
    /// A template failed: a defect of moescope.
    #[error("cannot fill the report's template: {0}; this is a defect worth an issue")]
    Template(#[from] minijinja::Error),
}
