//! From projected rows to attention heads: split, normalise, rotate, transpose in one pass.

use std::ops::Range;

use super::{
    rows::norm_row,
    simd::{Kernel, run},
};

/// What happens to each head on the way.
#[derive(Clone, Copy)]
pub(crate) struct Prepare<'a> {
    /// RMS norm with this weight (or none) and epsilon.
    pub(crate) norm: Option<(Option<&'a [f32]>, f32)>,
    /// Cosines and sines `[S, R/2]`: the first R dimensions rotate, in pairs (i, i + R/2).
    pub(crate) rotate: Option<(&'a [f32], &'a [f32])>,
}

/// Columns `columns` of `x [B*S, width]` as `[B, N, S, D]`.
pub(crate) fn split(
    x: &[f32],
    width: usize,
    columns: Range<usize>,
    dims: [usize; 4],
    prepare: Prepare<'_>,
) -> Vec<f32> {
    let mut out = vec![0.0; dims.iter().product()];
    run(Split { x, width, columns, dims, prepare, out: &mut out });
    out
}

struct Split<'a> {
    x: &'a [f32],
    width: usize,
    columns: Range<usize>,
    dims: [usize; 4],
    prepare: Prepare<'a>,
    out: &'a mut [f32],
}

impl Kernel for Split<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let [batch, heads, seq, dim] = self.dims;
        for b in 0..batch {
            for s in 0..seq {
                let row = &self.x[(b * seq + s) * self.width..][self.columns.clone()];
                for (n, head) in row.chunks_exact(dim).enumerate() {
                    let out = &mut self.out[((b * heads + n) * seq + s) * dim..][..dim];
                    match self.prepare.norm {
                        Some((weight, eps)) => norm_row(head, weight, eps, out),
                        None => out.copy_from_slice(head),
                    }
                    if let Some((cos, sin)) = self.prepare.rotate {
                        let half = cos.len() / seq;
                        rotate(out, &cos[s * half..][..half], &sin[s * half..][..half]);
                    }
                }
            }
        }
    }
}

/// Rotates the pairs (i, i + R/2) of the first R dimensions of a head.
#[inline(always)]
fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (low, high) = head.split_at_mut(cos.len());
    for (((a, b), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}
