//! Loops compiled once per instruction set, the best one chosen at run time.
//!
//! A kernel is a struct whose `run` is `#[inline(always)]`, and so is everything it calls: only what is
//! inlined into the dispatched function is compiled with its instructions. A closure would not be,
//! and every fused multiply-add in it would become a function call.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Elements per task, below which a second thread costs more than it saves.
const TASK: usize = 1 << 15;

/// Work on slices. `run` must be `#[inline(always)]`.
pub(crate) trait Kernel {
    /// What it computes.
    type Output;

    /// Does the work.
    fn run(self) -> Self::Output;
}

/// Runs a kernel with the best instructions of this processor.
pub(crate) fn run<K: Kernel>(kernel: K) -> K::Output {
    struct Dispatched<K>(K);

    impl<K: Kernel> WithSimd for Dispatched<K> {
        type Output = K::Output;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> K::Output {
            self.0.run()
        }
    }

    Arch::new().dispatch(Dispatched(kernel))
}

/// Work on a block of rows. `rows` must be `#[inline(always)]`.
pub(crate) trait RowKernel: Sync {
    /// Fills `out`, whose first row is row `first` of the whole.
    fn rows(&self, first: usize, out: &mut [f32]);
}

/// Runs a kernel over the rows of `out`, `width` elements each, in parallel where it pays.
pub(crate) fn by_rows(out: &mut [f32], width: usize, kernel: &impl RowKernel) {
    struct Block<'a, K> {
        kernel: &'a K,
        first: usize,
        out: &'a mut [f32],
    }

    impl<K: RowKernel> Kernel for Block<'_, K> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            self.kernel.rows(self.first, self.out);
        }
    }

    if out.len() < 2 * TASK {
        return run(Block { kernel, first: 0, out });
    }
    let rows = TASK.div_ceil(width.max(1));
    out.par_chunks_mut(rows * width)
        .enumerate()
        .for_each(|(block, out)| run(Block { kernel, first: block * rows, out }));
}
