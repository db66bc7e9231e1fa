//! What is wrong with a bench before it begins. What goes wrong within a row is kept in that row.

use moescope_trace::bench::Configuration;

/// A bench that can't begin.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// No row would measure anything.
    #[error(
        "the grid has no rows: give prompt lengths (-p), tokens to generate (-n) or pairs (--pg) and batches (-b) above 0"
    )]
    Empty,
    /// The cross product is out of hand.
    #[error(
        "the grid has {rows} rows, more than {most}; shorten a list or widen the steps of a range"
    )]
    TooLarge {
        /// Rows.
        rows: usize,
        /// Most there may be.
        most: usize,
    },
    /// A row is longer than the model's context.
    #[error(
        "{configuration}: {tokens} tokens do not fit the model's context of {context}; lower -d, -p or -n"
    )]
    Context {
        /// The row.
        configuration: Configuration,
        /// Tokens of one of its sequences.
        tokens: u64,
        /// What fits.
        context: usize,
    },
    /// Real text needs a tokenizer.
    #[error(
        "--workload text needs a tokenizer, and {model} has none: name one with --tokenizer \
         (tokenizer.json), give --prompts with token_ids, or measure --workload random or replay"
    )]
    NoTokenizer {
        /// The model.
        model: String,
    },
    /// A workload without tokens.
    #[error("the workload {workload} has no tokens: {reason}")]
    NoTokens {
        /// Its name.
        workload: &'static str,
        /// Why.
        reason: String,
    },
}
