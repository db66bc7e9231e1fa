//! Depths gathered into a curve over cache sizes.

/// A histogram of depths: hits for every cache size at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hits {
    /// Lookups by the smallest size that would have hit, `[sizes + 1]`; the last are misses at every
    /// size.
    counts: Vec<u64>,
    step: u32,
}

impl Hits {
    /// For the cache sizes `step`, `2 step`, ... , `sizes * step`.
    pub fn new(sizes: usize, step: usize) -> Self {
        Self { counts: vec![0; sizes + 1], step: step.max(1) as u32 }
    }

    /// Adds lookups by their depths.
    #[inline]
    pub fn add(&mut self, depths: &[u32]) {
        let misses = self.counts.len() - 1;
        for &depth in depths {
            let size = if self.step == 1 { depth } else { depth / self.step };
            self.counts[(size as usize).min(misses)] += 1;
        }
    }

    /// Adds all lookups of a histogram over the same sizes.
    pub fn add_all(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// Lookups in all.
    pub fn requests(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Hits of a cache of `size` keys, rounded down to a multiple of the step.
    pub fn at_most(&self, size: usize) -> u64 {
        let sizes = (size / self.step as usize).min(self.counts.len() - 1);
        self.counts[..sizes].iter().sum()
    }

    /// Hits by size, from the smallest, `[sizes]`.
    pub fn curve(&self) -> Vec<u64> {
        let mut sum = 0;
        self.counts[..self.counts.len() - 1]
            .iter()
            .map(|count| {
                sum += count;
                sum
            })
            .collect()
    }
}
