//! Who looks on: progress between passes, and a wish to stop that is heard before every forward pass.

use std::time::Duration;

use moescope_trace::bench::Configuration;

use crate::error::{RecordError, Result};

/// What a bench is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// First passes, and the pass that is observed.
    Cold,
    /// Putting the tokens of the depth into a cache.
    Fill {
        /// Tokens per sequence that are there.
        tokens: u32,
    },
    /// Passes that are thrown away.
    WarmUp,
    /// Samples.
    Sample,
    /// Passes one after the other whose energy is counted.
    Energy,
}

/// How far a bench is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// What comes next.
    pub stage: Stage,
    /// Of which arm.
    pub arm: usize,
    /// Of which row.
    pub configuration: &'a Configuration,
    /// Passes done.
    pub done: u64,
    /// Passes in all, as far as known.
    pub total: u64,
    /// Time left, from the times of the rows' passes so far.
    pub left: Option<Duration>,
}

/// Looks on while a row is worked on.
pub(super) struct Watch<'w> {
    pub(super) progress: &'w mut dyn FnMut(&Progress<'_>),
    pub(super) stop: &'w dyn Fn() -> bool,
    pub(super) now: Progress<'w>,
}

impl Watch<'_> {
    /// Before every forward pass.
    ///
    /// # Errors
    ///
    /// [`RecordError::Stopped`] if that is asked for.
    pub(super) fn go_on(&self) -> Result<()> {
        if (self.stop)() { Err(RecordError::Stopped) } else { Ok(()) }
    }

    /// Before every pass through a row.
    ///
    /// # Errors
    ///
    /// As [`Watch::go_on`].
    pub(super) fn tell(&mut self) -> Result<()> {
        (self.progress)(&self.now);
        self.go_on()
    }

    /// Before every chunk of the depth; `tokens` are there.
    ///
    /// # Errors
    ///
    /// As [`Watch::go_on`].
    pub(super) fn filled(&mut self, tokens: usize) -> Result<()> {
        let stage = Stage::Fill { tokens: tokens as u32 };
        (self.progress)(&Progress { stage, ..self.now });
        self.go_on()
    }
}
