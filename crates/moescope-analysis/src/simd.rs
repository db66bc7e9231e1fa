//! Inner loops compiled once per instruction set, the best one chosen at run time.
//!
//! A kernel is a struct whose `run` is `#[inline(always)]`: only what is inlined into the dispatched
//! function is compiled with its instructions. A closure would not be.

use pulp::{Arch, Simd, WithSimd};

/// Work on slices. `run` must be `#[inline(always)]`.
pub(crate) trait Kernel {
    /// Does the work.
    fn run(self);
}

/// Runs a kernel with the best instructions of this processor.
pub(crate) fn run<K: Kernel>(kernel: K) {
    struct Dispatched<K>(K);

    impl<K: Kernel> WithSimd for Dispatched<K> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            self.0.run();
        }
    }

    Arch::new().dispatch(Dispatched(kernel));
}
