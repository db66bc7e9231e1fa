//! Ctrl-C: the first asks to stop at the next good point, the second ends the program.

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

const SIGNALS: [i32; 2] = [SIGINT, SIGTERM];

/// What is said when the first signal comes.
#[derive(Clone, Copy)]
pub(super) struct Says {
    /// While a second one would lose something.
    pub(super) unsaved: &'static str,
    /// After [`Interrupt::saved`].
    pub(super) saved: &'static str,
}

/// Listens from its making on.
pub(super) struct Interrupt {
    asked: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
    saved: Arc<AtomicBool>,
}

impl Interrupt {
    /// `says` is told the user when the first signal comes; of several processes that hear the same, one says it.
    pub(super) fn listen(says: Option<Says>) -> anyhow::Result<Self> {
        let interrupt =
            Interrupt { asked: Arc::default(), signal: Arc::default(), saved: Arc::default() };
        for signal in SIGNALS {
            interrupt
                .register(signal)
                .with_context(|| format!("cannot listen for signal {signal}"))?;
        }
        if let Some(says) = says {
            answer(&interrupt.saved, says).context("cannot listen for signals")?;
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

    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// From here on nothing is lost.
    pub(super) fn saved(&self) {
        self.saved.store(true, Ordering::Relaxed);
    }

    /// 130 after Ctrl-C, as of any program that it ends.
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from((SIGNALLED as usize + self.signal.load(Ordering::Relaxed)) as u8)
    }
}

/// Says at once that the first signal was heard: a pass may take minutes. A handler may not print, so a thread
/// does, which sleeps until then and takes no part in what is measured.
#[cfg(unix)]
fn answer(saved: &Arc<AtomicBool>, says: Says) -> std::io::Result<()> {
    use std::{io::Read, os::unix::net::UnixStream};

    let (mut heard, told) = UnixStream::pair()?;
    for signal in SIGNALS {
        signal_hook::low_level::pipe::register(signal, told.try_clone()?)?;
    }
    let saved = Arc::clone(saved);
    let wait = move || {
        // It ends with the program where there is no signal.
        if heard.read_exact(&mut [0]).is_ok() {
            crate::ui::note(match saved.load(Ordering::Relaxed) {
                true => says.saved,
                false => says.unsaved,
            });
        }
    };
    std::thread::Builder::new().name("interrupt".into()).spawn(wait)?;
    Ok(())
}

/// No signals of this kind there: the program ends without a word before.
#[cfg(not(unix))]
fn answer(_: &Arc<AtomicBool>, _: Says) -> std::io::Result<()> {
    Ok(())
}
