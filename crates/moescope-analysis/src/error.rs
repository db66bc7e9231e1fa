//! What can keep a run from being analysed.

use moescope_trace::TraceError;

/// An error of [`crate::analyze`] or of [`crate::RunData`]'s constructors.
#[derive(Debug, thiserror::Error)]
pub enum AnalysisError {
    /// The run directory cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),

    /// Two columns that belong together have different lengths.
    #[error("{column}: expected {expected} values, found {found}")]
    Length {
        /// Table and column, such as `routing.experts (layer 3)`.
        column: String,
        /// Values the other columns ask for.
        expected: usize,
        /// Values found.
        found: usize,
    },

    /// A value that cannot be: an expert beyond E, a domain without a name.
    #[error("{column}, sequence {sequence}, position {position}: {problem}")]
    Value {
        /// Table and column.
        column: &'static str,
        /// Sequence of the row.
        sequence: u32,
        /// Position of the row.
        position: u32,
        /// What was expected and what was found.
        problem: String,
    },
}
