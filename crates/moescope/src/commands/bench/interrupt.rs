//! Ctrl-C: the first asks to stop after the sample in progress, the second ends the program.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use anyhow::Context;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

/// Exit code of a program that a signal ended.
const SIGNALLED: i32 = 128;

/// Listens from its making on.
pub(in crate::commands) struct Interrupt {
    asked: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    pub(in crate::commands) fn listen() -> anyhow::Result<Self> {
        let interrupt = Interrupt { asked: Arc::default(), signal: Arc::default() };
        for signal in [SIGINT, SIGTERM] {
            interrupt
                .register(signal)
                .with_context(|| format!("cannot listen for signal {signal}"))?;
        }
        Ok(interrupt)
    }

    /// Handlers run in this order: ends the program where it has been asked before, then asks.
    fn register(&self, signal: i32) -> std::io::Result<()> {
        flag::register_conditional_shutdown(signal, SIGNALLED + signal, Arc::clone(&self.asked))?;
        flag::register_usize(signal, Arc::clone(&self.signal), signal as usize)?;
        flag::register(signal, Arc::clone(&self.asked))?;
        Ok(())
    }

    pub(in crate::commands) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// 130 after Ctrl-C, as of any program that it ends.
    pub(in crate::commands) fn exit_code(&self) -> ExitCode {
        ExitCode::from((SIGNALLED as usize + self.signal.load(Ordering::Relaxed)) as u8)
    }
}
