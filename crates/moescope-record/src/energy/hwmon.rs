//! Sensors of a GPU's driver: an energy counter, or power that is sampled and integrated.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::environment::{Card, Roots, sysfs::number};

/// Time between two readings of power. Shorter ones read the same value again: drivers average over longer.
const PERIOD: Duration = Duration::from_millis(20);

/// A counter of microjoules.
pub(super) struct Counter {
    path: PathBuf,
    start: u64,
}

impl Counter {
    pub(super) fn open(card: &Card, roots: &Roots) -> Option<Self> {
        let (path, start) = sensor(card, roots, &["energy1_input"])?;
        Some(Counter { path, start })
    }

    pub(super) fn joules(&self) -> Option<f64> {
        Some(number(&self.path)?.checked_sub(self.start)? as f64 / 1e6)
    }
}

/// Power, integrated by a thread of its own until this is dropped.
pub(super) struct Sampled {
    integral: Arc<Mutex<Integral>>,
    /// Dropping it ends the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sampled {
    pub(super) fn open(card: &Card, roots: &Roots) -> Option<Self> {
        // The average where there is one; newer cards have the input only.
        let (path, _) = sensor(card, roots, &["power1_average", "power1_input"])?;
        let integral = Arc::new(Mutex::new(Integral::start(path, Instant::now())?));
        let (stop, stopped) = channel::<()>();
        let shared = integral.clone();
        let sample = move || {
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                lock(&shared).advance(Instant::now());
            }
        };
        let thread = std::thread::Builder::new().name("energy".into()).spawn(sample).ok()?;
        Some(Sampled { integral, stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn joules(&self) -> Option<f64> {
        let mut integral = lock(&self.integral);
        integral.advance(Instant::now());
        integral.joules
    }
}

impl Drop for Sampled {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell, and a panic in it was printed.
            let _ = thread.join();
        }
    }
}

/// Nothing under the lock leaves it half changed.
fn lock(integral: &Mutex<Integral>) -> std::sync::MutexGuard<'_, Integral> {
    integral.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Energy from readings of power, by the trapezoid rule.
pub(super) struct Integral {
    path: PathBuf,
    at: Instant,
    watts: f64,
    /// `None` once the sensor could not be read.
    pub(super) joules: Option<f64>,
}

impl Integral {
    pub(super) fn start(path: PathBuf, at: Instant) -> Option<Self> {
        let watts = watts(&path)?;
        Some(Integral { path, at, watts, joules: Some(0.0) })
    }

    pub(super) fn advance(&mut self, now: Instant) {
        let now_watts = watts(&self.path);
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        let step = now_watts.map(|watts| seconds * (self.watts + watts) / 2.0);
        self.joules = self.joules.zip(step).map(|(joules, step)| joules + step);
        self.watts = now_watts.unwrap_or(0.0);
        self.at = now;
    }
}

fn watts(path: &Path) -> Option<f64> {
    number(path).map(|microwatts| microwatts as f64 / 1e6)
}

/// The first of these files that a sensor of the card has and that reads as a number.
fn sensor(card: &Card, roots: &Roots, files: &[&str]) -> Option<(PathBuf, u64)> {
    let sensors = card.sensors(roots);
    let all = files.iter().flat_map(|file| sensors.iter().map(move |s| s.join(file)));
    all.into_iter().find_map(|path| number(&path).map(|value| (path, value)))
}
