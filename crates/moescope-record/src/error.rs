//! What can go wrong between prompts and a run.

use std::path::PathBuf;

use moescope_model::ModelError;
use moescope_trace::TraceError;

/// An error of prompts, tokenizer or recording.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The model refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The run directory can't be written.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A bench can't begin.
    #[error(transparent)]
    Bench(#[from] crate::bench::BenchError),
    /// A prompt file or directory can't be read.
    #[error("{path}: cannot read prompts: {source}", path = path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A directory holds no prompts.
    #[error("{path}: no prompts; expected .jsonl or .txt files", path = path.display())]
    NoPrompts {
        /// The path.
        path: PathBuf,
    },
    /// A record is malformed.
    #[error("{place}: {reason}")]
    Record {
        /// File and line.
        place: String,
        /// What is wrong and what is expected.
        reason: String,
    },
    /// A prompt has no tokens.
    #[error("{place}: the prompt is empty; give it text, messages or token_ids")]
    Empty {
        /// Where it was read from, or its id.
        place: String,
    },
    /// A prompt does not fit the model.
    #[error("prompt {id:?}: {source}")]
    Prompt {
        /// The prompt's id.
        id: String,
        /// Why.
        source: Box<ModelError>,
    },
    /// A prompt and its continuation do not fit the context.
    #[error(
        "prompt {id:?}: {tokens} tokens and --max-tokens {max_tokens} do not fit the model's context of \
         {context}; shorten the prompt or lower --max-tokens"
    )]
    TooLong {
        /// The prompt's id.
        id: String,
        /// Its tokens.
        tokens: usize,
        /// Tokens to generate.
        max_tokens: usize,
        /// The model's context.
        context: usize,
    },
    /// The tokenizer can't be loaded or used.
    #[error("{path}: {reason}", path = path.display())]
    Tokenizer {
        /// `tokenizer.json`.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The chat template can't be used.
    #[error("{path}{place}: chat template: {reason}; prompts given as `text` need none", path = path.display())]
    Template {
        /// The file.
        path: PathBuf,
        /// Key and line, starting with a separator, or nothing.
        place: String,
        /// Why.
        reason: String,
    },
    /// There is no chat template.
    #[error(
        "{dir}: no chat template (chat_template.jinja, chat_template.json, or `chat_template` in \
         tokenizer_config.json) for prompts given as `messages`; give `text` or `token_ids`",
        dir = dir.display()
    )]
    NoTemplate {
        /// The model directory.
        dir: PathBuf,
    },
    /// The messages of a prompt can't be made into text.
    #[error("prompt {id:?}: {source}")]
    Messages {
        /// The prompt's id.
        id: String,
        /// Why.
        source: Box<RecordError>,
    },
    /// A run can't be replayed, or not with this model.
    #[error("{path}: can't be replayed: {reason}", path = path.display())]
    Replay {
        /// The run directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// It was asked to stop.
    #[error("interrupted")]
    Stopped,
    /// The device failed while running.
    #[error("the device failed: {0}")]
    Device(String),
}

/// Result of this crate's fallible functions.
pub type Result<T, E = RecordError> = std::result::Result<T, E>;
