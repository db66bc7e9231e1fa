//! From prompts to a recorded run.
//!
//! - [`prompts`]: JSON lines, text files, directories, stdin
//! - [`text`]: the tokenizer; [`chat`]: conversations as text
//! - [`sampling`]: choosing the next token
//! - [`generate`]: prefill and decode, timed
//! - [`recorder`]: what an observer keeps of it, as rows
//! - [`profiler`]: times per component, in a pass of their own
//! - [`mod@inject`]: faults on purpose, to test the gate
//! - [`memory`]: device pools and resident memory
//! - [`replay`]: a recorded run's experts forced upon a model
//! - [`conditions`]: the manifest of a run; [`environment`]: the machine it is made on
//! - [`energy`]: joules, where the platform counts them; [`peaks`]: what a device can do; [`dispatch`]: kernels
//!   launched
//! - [`mod@run`]: all of it together
//! - [`mod@bench`]: the benchmark protocol

pub mod bench;
pub mod chat;
pub mod conditions;
pub mod dispatch;
pub mod energy;
pub mod environment;
pub mod error;
pub mod generate;
pub mod inject;
pub mod memory;
pub mod peaks;
pub mod profiler;
pub mod prompts;
pub mod recorder;
pub mod replay;
pub mod run;
pub mod sampling;
pub mod text;

pub use error::{RecordError, Result};
pub use prompts::{Prompt, PromptInput};
pub use recorder::Keep;
pub use run::{Progress, RunOptions, Summary, run};
pub use sampling::Sampling;
pub use text::Text;

/// For tests that measure times, or count what the whole process does.
#[cfg(test)]
pub(crate) fn one_at_a_time() -> std::sync::MutexGuard<'static, ()> {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
