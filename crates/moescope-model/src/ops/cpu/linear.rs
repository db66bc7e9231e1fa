//! Products with a weight matrix: `[T, I] x [O, I]^T -> [T, O]`.

use rayon::prelude::*;

use super::{
    lanes::{Weight, dot, dots},
    product::{Matrix, product},
    simd::{Kernel, run},
    tile::tiled,
};

/// From this many rows on, the multiplication that packs its operands first wins over tiles.
const MANY: usize = 32;
/// Weight rows per block of a blocked multiplication.
const BLOCK: usize = 128;
/// Weight rows of a task come in multiples of this: whole groups of the dot products and of the tiles.
const GROUP: usize = 12;
/// Multiplications per task, below which a second thread costs more than it saves.
pub(crate) const TASK: usize = 1 << 17;

/// A mutable buffer that tasks write disjoint parts of.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);

// SAFETY: every user writes only the rows or columns of its own task.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(buffer: &mut [f32]) -> Self {
        Shared(buffer.as_mut_ptr())
    }

    pub(crate) fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }

    /// What is left of the buffer from `offset` on.
    pub(crate) fn from(self, offset: usize) -> Self {
        Shared(self.at(offset))
    }
}

/// `x [T, I] x w [O, I]^T`, in parallel where it pays.
pub(crate) fn linear<W: Weight>(x: &[f32], w: &[W], inner: usize) -> Vec<f32> {
    let (t, o) = (x.len() / inner, w.len() / inner);
    let mut out = vec![0.0; t * o];
    let work = t * o * inner;
    if work < 2 * TASK {
        rows(x, w, inner, Shared::new(&mut out), o);
        return out;
    }
    let shared = Shared::new(&mut out);
    let tasks = (work / TASK).min(4 * rayon::current_num_threads());
    let per_task = o.div_ceil(tasks).next_multiple_of(GROUP);
    (0..o.div_ceil(per_task)).into_par_iter().for_each(|task| {
        let columns = task * per_task..((task + 1) * per_task).min(o);
        let w = &w[columns.start * inner..columns.end * inner];
        rows(x, w, inner, shared.from(columns.start), o);
    });
    out
}

/// Head n of every row of `x [T, N * I]` times `w [N, O, I]`, each head with its own matrix: `[T, N * O]`.
pub(crate) fn by_head<W: Weight>(x: &[f32], w: &[W], heads: usize, inner: usize) -> Vec<f32> {
    let (width, o) = (heads * inner, w.len() / (heads * inner));
    let t = x.len() / width;
    let mut out = vec![0.0; t * heads * o];
    let shared = Shared::new(&mut out);
    let one = |head: usize| {
        let w = &w[head * o * inner..][..o * inner];
        // This task alone writes these columns of every row.
        let out = shared.from(head * o);
        let columns = head * inner..(head + 1) * inner;
        if t == 1 {
            return rows(&x[columns], w, inner, out, heads * o);
        }
        let mut gathered = Vec::with_capacity(t * inner);
        x.chunks_exact(width).for_each(|row| gathered.extend_from_slice(&row[columns.clone()]));
        rows(&gathered, w, inner, out, heads * o);
    };
    match t * width * o < 2 * TASK {
        true => (0..heads).for_each(one),
        false => (0..heads).into_par_iter().for_each(one),
    }
    out
}

/// `x [T, I] x w [N, I]^T` into the first N columns of rows `stride` apart, on this thread.
///
/// `out` must have room for T rows; other tasks may write other columns.
pub(crate) fn rows<W: Weight>(x: &[f32], w: &[W], inner: usize, out: Shared, stride: usize) {
    match x.len() / inner {
        // No tile of one row is as quick as dot products.
        0..=1 => one(x, w, inner, out),
        // SAFETY: the caller's promise.
        t if t < MANY => unsafe { tiled(x, w, inner, out, stride) },
        _ => many(x, w, inner, out, stride),
    }
}

fn one<W: Weight>(x: &[f32], w: &[W], inner: usize, out: Shared) {
    if !x.is_empty() {
        run(One { x, w, inner, out });
    }
}

/// Dot products of one row with all weight rows.
struct One<'a, W> {
    x: &'a [f32],
    w: &'a [W],
    inner: usize,
    out: Shared,
}

impl<W: Weight> Kernel for One<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let One { x, w, inner, out } = self;
        let quads = w.chunks_exact(4 * inner);
        let rest = quads.remainder();
        let quad_rows = w.len() / inner / 4 * 4;
        for (i, quad) in quads.enumerate() {
            let (low, high) = quad.split_at(2 * inner);
            let four = [&low[..inner], &low[inner..], &high[..inner], &high[inner..]];
            for (r, sum) in dots(four, x).into_iter().enumerate() {
                // SAFETY: column 4 i + r of N, in the caller's part.
                unsafe { *out.at(4 * i + r) = sum };
            }
        }
        for (r, row) in rest.chunks_exact(inner).enumerate() {
            // SAFETY: as above.
            unsafe { *out.at(quad_rows + r) = dot(row, x) };
        }
    }
}

/// Widens weights to f32.
struct Widen<'a, W>(&'a [W], &'a mut [f32]);

impl<W: Weight> Kernel for Widen<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (wide, w) in self.1.iter_mut().zip(self.0) {
            *wide = w.f32();
        }
    }
}

fn many<W: Weight>(x: &[f32], w: &[W], inner: usize, out: Shared, stride: usize) {
    let t = x.len() / inner;
    let mut wide = Vec::new();
    for (block, w) in w.chunks(BLOCK * inner).enumerate() {
        // f32 weights are used where they lie; others are widened a block at a time, which the
        // multiplication with many rows pays back.
        let w = match as_f32(w) {
            Some(w) => w,
            None => {
                wide.resize(w.len(), 0.0);
                run(Widen(w, &mut wide));
                &wide
            }
        };
        let n = w.len() / inner;
        let (x, w) = (Matrix::rows(x, inner), Matrix::rows(w, inner).transposed());
        // SAFETY: x is [t, inner], w is [n, inner] read transposed, and out has t rows of which this
        // call owns columns block * BLOCK .. + n.
        unsafe { product(out.at(block * BLOCK), stride, x, w, [t, n, inner]) };
    }
}

/// The slice itself where `W` is f32.
fn as_f32<W: Weight>(w: &[W]) -> Option<&[f32]> {
    (std::any::TypeId::of::<W>() == std::any::TypeId::of::<f32>())
        // SAFETY: W is f32.
        .then(|| unsafe { std::slice::from_raw_parts(w.as_ptr().cast(), w.len()) })
}

#[cfg(test)]
mod tests {
    use half::bf16;
    use proptest::prelude::*;

    use super::*;

    fn plain(x: &[f32], w: &[f32], inner: usize) -> Vec<f32> {
        let dot =
            |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        x.chunks(inner).flat_map(|x| w.chunks(inner).map(move |w| dot(x, w) as f32)).collect()
    }

    fn pseudo(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..n).map(|_| next()).collect()
    }

    proptest! {
        #[test]
        fn equals_the_plain_product(t in 1usize..40, inner in 1usize..70, o in 1usize..300, seed: u32) {
            let (x, w) = (pseudo(t * inner, seed), pseudo(o * inner, seed ^ 1));
            for (got, want) in linear(&x, &w, inner).iter().zip(plain(&x, &w, inner)) {
                prop_assert!((got - want).abs() < 1e-4, "{got} {want}");
            }
            let narrow: Vec<bf16> = w.iter().map(|&w| bf16::from_f32(w)).collect();
            let widened: Vec<f32> = narrow.iter().map(|w| w.to_f32()).collect();
            for (got, want) in linear(&x, &narrow, inner).iter().zip(plain(&x, &widened, inner)) {
                prop_assert!((got - want).abs() < 1e-4, "{got} {want}");
            }
        }
    }

    /// Rows longer than a tile's buffer, columns that make no whole group, every number of rows.
    #[test]
    fn tiles_of_every_shape() {
        for (t, inner, o) in [
            (2, 1500, 31),
            (3, 704, 5),
            (4, 33, 2),
            (5, 1500, 31),
            (6, 704, 3),
            (7, 705, 4),
            (31, 1409, 2),
            (8, 2816, 1),
        ] {
            let (x, w) = (pseudo(t * inner, 3), pseudo(o * inner, 4));
            for (got, want) in linear(&x, &w, inner).iter().zip(plain(&x, &w, inner)) {
                assert!((got - want).abs() < 1e-3, "{t} {inner} {o}: {got} {want}");
            }
        }
    }

    #[test]
    fn heads_have_their_own_matrices() {
        for (t, heads, inner, o) in [(1, 3, 5, 7), (2, 1, 4, 4), (9, 4, 33, 12), (5, 16, 64, 130)] {
            let (x, w) = (pseudo(t * heads * inner, 3), pseudo(heads * o * inner, 4));
            let got = by_head(&x, &w, heads, inner);
            for (row, got) in x.chunks(heads * inner).zip(got.chunks(heads * o)) {
                for head in 0..heads {
                    let x = &row[head * inner..][..inner];
                    let want = plain(x, &w[head * o * inner..][..o * inner], inner);
                    for (got, want) in got[head * o..].iter().zip(want) {
                        assert!((got - want).abs() < 1e-4, "{got} {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn large_products_are_split_without_loss() {
        let (t, inner, o) = (3, 512, 1030);
        let (x, w) = (pseudo(t * inner, 7), pseudo(o * inner, 8));
        for (got, want) in linear(&x, &w, inner).iter().zip(plain(&x, &w, inner)) {
            assert!((got - want).abs() < 1e-3, "{got} {want}");
        }
    }
}
