//! A run written on a thread of its own, so that encoding never waits in a forward pass.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use crate::columns::{LayerColumns, RoutingColumns, StepColumns, TokenColumns};
use crate::error::TraceError;
use crate::manifest::Manifest;
use crate::writer::RunWriter;

/// Batches that may wait before a sender waits too: enough to ride out a slow disk, few enough that memory
/// stays a small multiple of one batch.
const QUEUE: usize = 8;

/// Work for the thread, done in the order it is sent.
enum Job {
    Tokens(TokenColumns),
    Routing(RoutingColumns),
    Steps(StepColumns),
    Layers(LayerColumns),
    Manifest(Box<dyn FnOnce(&mut Manifest) + Send>),
}

/// A [`RunWriter`] behind a bounded queue.
///
/// The first error of the thread stops it; every later `send_*` and [`finish`](Self::finish) return that
/// error. Dropped without `finish`, it writes what was queued and leaves the run `partial`.
#[derive(Debug)]
pub struct BackgroundWriter {
    path: PathBuf,
    /// `None` once closed.
    queue: Option<SyncSender<Job>>,
    /// `None` once joined.
    thread: Option<JoinHandle<Option<RunWriter>>>,
    failure: Arc<OnceLock<Arc<TraceError>>>,
}

impl BackgroundWriter {
    /// Moves `writer` to a thread.
    ///
    /// # Errors
    ///
    /// [`TraceError::Io`] where no thread can be started.
    pub fn spawn(writer: RunWriter) -> Result<Self, TraceError> {
        Self::with_queue(writer, QUEUE)
    }

    /// As [`spawn`](Self::spawn), with room for `capacity` waiting batches.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    pub fn with_queue(writer: RunWriter, capacity: usize) -> Result<Self, TraceError> {
        let path = writer.path().to_path_buf();
        let failure = Arc::new(OnceLock::new());
        let (queue, jobs) = sync_channel(capacity);
        let thread = thread::Builder::new()
            .name("moescope-writer".to_string())
            .spawn({
                let failure = Arc::clone(&failure);
                move || run(writer, &jobs, &failure)
            })
            .map_err(|source| TraceError::io(&path, "start the writer of", source))?;
        Ok(Self { path, queue: Some(queue), thread: Some(thread), failure })
    }

    /// The run directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Queues one part of `tokens/`. Waits only while the queue is full.
    ///
    /// # Errors
    ///
    /// The thread's first error, as [`TraceError::Background`].
    pub fn send_tokens(&self, columns: TokenColumns) -> Result<(), TraceError> {
        self.send(Job::Tokens(columns))
    }

    /// Queues one part of `routing/`; see [`send_tokens`](Self::send_tokens).
    ///
    /// # Errors
    ///
    /// As [`send_tokens`](Self::send_tokens).
    pub fn send_routing(&self, columns: RoutingColumns) -> Result<(), TraceError> {
        self.send(Job::Routing(columns))
    }

    /// Queues one part of `steps/`; see [`send_tokens`](Self::send_tokens).
    ///
    /// # Errors
    ///
    /// As [`send_tokens`](Self::send_tokens).
    pub fn send_steps(&self, columns: StepColumns) -> Result<(), TraceError> {
        self.send(Job::Steps(columns))
    }

    /// Queues one part of `layers/`; see [`send_tokens`](Self::send_tokens).
    ///
    /// # Errors
    ///
    /// As [`send_tokens`](Self::send_tokens).
    pub fn send_layers(&self, columns: LayerColumns) -> Result<(), TraceError> {
        self.send(Job::Layers(columns))
    }

    /// Changes the manifest after the batches queued so far and writes it.
    ///
    /// # Errors
    ///
    /// As [`send_tokens`](Self::send_tokens).
    pub fn edit_manifest(
        &self,
        edit: impl FnOnce(&mut Manifest) + Send + 'static,
    ) -> Result<(), TraceError> {
        self.send(Job::Manifest(Box::new(edit)))
    }

    /// Writes what is queued, marks the run complete and returns its directory.
    ///
    /// # Errors
    ///
    /// The thread's first error, also where a `send_*` returned it before; the run then stays `partial`.
    pub fn finish(self) -> Result<PathBuf, TraceError> {
        self.into_writer()?.finish()
    }

    /// Writes what is queued, ends the thread and gives the writer back, to complete the manifest from what
    /// is known only at the end. The run stays `partial` until [`RunWriter::finish`].
    ///
    /// # Errors
    ///
    /// As [`finish`](Self::finish).
    pub fn into_writer(mut self) -> Result<RunWriter, TraceError> {
        self.join().ok_or_else(|| self.failure())
    }

    fn send(&self, job: Job) -> Result<(), TraceError> {
        if self.failure.get().is_some() {
            return Err(self.failure());
        }
        match &self.queue {
            // The thread ends early only after it noted its failure.
            Some(queue) => queue.send(job).map_err(|_| self.failure()),
            None => Err(self.failure()),
        }
    }

    /// Closes the queue and waits for the thread; `None` if it failed.
    fn join(&mut self) -> Option<RunWriter> {
        self.queue = None;
        self.thread.take()?.join().ok().flatten()
    }

    fn failure(&self) -> TraceError {
        match self.failure.get() {
            Some(error) => TraceError::Background(Arc::clone(error)),
            None => TraceError::WriterPanicked {
                path: self.path.clone(),
                message: "no message".to_string(),
            },
        }
    }
}

impl Drop for BackgroundWriter {
    /// Writes what is queued: a run that ends in an error keeps all it recorded.
    fn drop(&mut self) {
        if self.join().is_none()
            && let Some(error) = self.failure.get()
        {
            tracing::debug!(%error, "run dropped after its writer failed");
        }
    }
}

/// The thread: jobs until the queue closes or one fails.
fn run(
    mut writer: RunWriter,
    jobs: &Receiver<Job>,
    failure: &OnceLock<Arc<TraceError>>,
) -> Option<RunWriter> {
    for job in jobs {
        // Polars unwraps in places of its encoder; a panic must reach the caller as an error.
        let result =
            catch_unwind(AssertUnwindSafe(|| perform(&mut writer, job))).unwrap_or_else(|panic| {
                Err(TraceError::WriterPanicked {
                    path: writer.path().to_path_buf(),
                    message: panic_message(&*panic),
                })
            });
        if let Err(error) = result {
            // Noted before the queue closes with the end of this function, so that a sender finds it.
            let _ = failure.set(Arc::new(error));
            return None;
        }
    }
    Some(writer)
}

fn perform(writer: &mut RunWriter, job: Job) -> Result<(), TraceError> {
    match job {
        Job::Tokens(columns) => writer.write_tokens(&columns),
        Job::Routing(columns) => writer.write_routing(&columns),
        Job::Steps(columns) => writer.write_steps(&columns),
        Job::Layers(columns) => writer.write_layers(&columns),
        Job::Manifest(edit) => {
            edit(writer.manifest_mut());
            writer.sync_manifest()
        }
    }
}

/// The text of a panic, where it has one.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_string())
}
