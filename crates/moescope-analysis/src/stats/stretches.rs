//! Samples that follow each other resemble each other.
//!
//! A clock that changes, another program, another guest of a virtual machine: what disturbs a sample
//! disturbs the next ones too. Resampling single samples takes them for independent, and the more there are
//! the narrower the interval gets, although all may lie in one calm stretch. So intervals of samples in time
//! are computed twice where there are enough, from single samples and from stretches of consecutive ones, which
//! keep what neighbours share (the block bootstrap: H. Künsch, "The jackknife and the bootstrap for general
//! stationary observations", 1989), and the wider side of each counts. What changes more slowly than a tenth of
//! the measurement stays unseen.

use crate::bootstrap::Resamples;

/// Stretches a series is cut into; twice as many samples have to be there.
const STRETCHES: usize = 10;

/// Resamples of a series in time, by stretches of equal length (the last may be shorter).
pub(super) struct Resampled {
    resamples: Resamples,
    length: usize,
}

impl Resampled {
    /// By single samples and, where there are enough, by stretches.
    pub(super) fn both(samples: usize, count: usize, seed: u64) -> Vec<Self> {
        let stretch = Some(samples / STRETCHES).filter(|length| *length > 1);
        let lengths = [Some(1), stretch].into_iter().flatten();
        let of = |length| Resampled {
            resamples: Resamples::new(samples.div_ceil(length), count, seed),
            length,
        };
        lengths.map(of).collect()
    }

    pub(super) fn resamples(&self) -> &Resamples {
        &self.resamples
    }

    /// How often the sample at a place counts in resample `r`.
    pub(super) fn weight(&self, r: usize, place: usize) -> u16 {
        self.resamples.weights(r)[place / self.length]
    }
}

/// An interval that holds both; `None` unless there is one.
pub(super) fn wider(a: Option<(f64, f64)>, b: Option<(f64, f64)>) -> Option<(f64, f64)> {
    match (a, b) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (one, other) => one.or(other),
    }
}
