//! Products of a weight matrix with some rows: more than one at a time pays, fewer than packing pays.
//!
//! A tile is the product of four rows of `x` with three rows of `w`, both along their contiguous dimension:
//! twelve sums in registers, seven loads for twelve multiplications. Narrow weights are widened once into
//! a buffer that stays in the first-level cache, and are read from memory in order.

use pulp::{Arch, Simd, WithSimd};

use super::{lanes::Weight, linear::Shared};

/// Rows of `w` in a tile.
const ROWS: usize = 3;
/// Elements of a row handled at once: the buffer is 8 KiB.
const INNER: usize = 704;

/// `x [T, I] x w [N, I]^T` into the first N columns of the T rows of `out`, which are `stride` apart, on this
/// thread.
///
/// # Safety
///
/// `out` must have room for T rows, and no other task may read or write those columns meanwhile.
pub(super) unsafe fn tiled<W: Weight>(
    x: &[f32],
    w: &[W],
    inner: usize,
    out: Shared,
    stride: usize,
) {
    Arch::new().dispatch(Tiled { x, w, inner, out, stride });
}

struct Tiled<'a, W> {
    x: &'a [f32],
    w: &'a [W],
    inner: usize,
    out: Shared,
    stride: usize,
}

impl<W: Weight> WithSimd for Tiled<'_, W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut buffer = [[0.0; INNER]; ROWS];
        let mut groups = self.w.chunks_exact(ROWS * self.inner);
        let mut column = 0;
        for rows in groups.by_ref() {
            let (first, rest) = rows.split_at(self.inner);
            let (second, third) = rest.split_at(self.inner);
            self.group(simd, [first, second, third], &mut buffer, column);
            column += ROWS;
        }
        for row in groups.remainder().chunks_exact(self.inner) {
            let [buffer, ..] = &mut buffer;
            self.group(simd, [row], std::array::from_mut(buffer), column);
            column += 1;
        }
    }
}

impl<W: Weight> Tiled<'_, W> {
    /// All rows of `x` with R rows of `w`, the first of which is column `column` of the result.
    #[inline(always)]
    fn group<S: Simd, const R: usize>(
        &self,
        simd: S,
        rows: [&[W]; R],
        buffer: &mut [[f32; INNER]; R],
        column: usize,
    ) {
        for from in (0..self.inner).step_by(INNER) {
            let part = from..(from + INNER).min(self.inner);
            for (wide, row) in buffer.iter_mut().zip(rows) {
                for (wide, w) in wide.iter_mut().zip(&row[part.clone()]) {
                    *wide = w.f32();
                }
            }
            let mut w: [&[f32]; R] = [&[]; R];
            for (w, wide) in w.iter_mut().zip(buffer.iter()) {
                *w = &wide[..part.len()];
            }
            let x = |t: usize| &self.x[t * self.inner..][part.clone()];
            let add = |t: usize, sums: [f32; R]| {
                for (r, sum) in sums.into_iter().enumerate() {
                    // SAFETY: row t of T and one of the N columns, which the caller of `tiled` owns.
                    unsafe {
                        let out = self.out.at(t * self.stride + column + r);
                        *out = if from == 0 { sum } else { *out + sum };
                    }
                }
            };
            let (count, mut t) = (self.x.len() / self.inner, 0);
            while t + 4 <= count {
                let sums = tile(simd, [x(t), x(t + 1), x(t + 2), x(t + 3)], w);
                for (i, sums) in sums.into_iter().enumerate() {
                    add(t + i, sums);
                }
                t += 4;
            }
            if t + 2 <= count {
                let sums = tile(simd, [x(t), x(t + 1)], w);
                for (i, sums) in sums.into_iter().enumerate() {
                    add(t + i, sums);
                }
                t += 2;
            }
            if t < count {
                add(t, tile(simd, [x(t)], w)[0]);
            }
        }
    }
}

/// Dot products of T rows with R rows, all of one length.
#[inline(always)]
fn tile<S: Simd, const T: usize, const R: usize>(
    simd: S,
    x: [&[f32]; T],
    w: [&[f32]; R],
) -> [[f32; R]; T] {
    // Loops, not `map` and `from_fn` of arrays: their closures are compiled without the kernel's instructions.
    let (mut xs, mut ws) = ([(&[][..], &[][..]); T], [(&[][..], &[][..]); R]);
    for (split, x) in xs.iter_mut().zip(x) {
        *split = S::as_simd_f32s(x);
    }
    for (split, w) in ws.iter_mut().zip(w) {
        *split = S::as_simd_f32s(w);
    }
    let steps = ws[0].0.len();
    assert!(xs.iter().chain(&ws).all(|(body, _)| body.len() == steps));
    let mut sums = [[simd.splat_f32s(0.0); R]; T];
    for i in 0..steps {
        let mut w = [simd.splat_f32s(0.0); R];
        for (w, (body, _)) in w.iter_mut().zip(&ws) {
            // SAFETY: i is below the length of every body, as asserted; the checks would cost registers.
            *w = unsafe { *body.get_unchecked(i) };
        }
        for (sums, (x, _)) in sums.iter_mut().zip(&xs) {
            // SAFETY: as above.
            let x = unsafe { *x.get_unchecked(i) };
            for (sum, w) in sums.iter_mut().zip(w) {
                *sum = simd.mul_add_f32s(x, w, *sum);
            }
        }
    }
    let mut out = [[0.0; R]; T];
    for ((out, sums), (_, x)) in out.iter_mut().zip(&sums).zip(&xs) {
        for ((out, sum), (_, w)) in out.iter_mut().zip(sums).zip(&ws) {
            *out = simd.reduce_sum_f32s(*sum);
            for (x, w) in x.iter().zip(*w) {
                *out += x * w;
            }
        }
    }
    out
}
