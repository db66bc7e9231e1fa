//! Settings of an analysis.

/// Settings of an analysis. The same options on the same run give the same numbers, bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bootstrap resamples behind each interval, R; 0 leaves intervals out.
    pub resamples: usize,
    /// Seed of the resampling.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { resamples: 1000, seed: 20_240_701 }
    }
}
