//! From projected rows to attention heads: split, normalise, rotate, transpose in one pass.

use std::ops::Range;

use super::{
    rows::norm_row,
    simd::{Kernel, run},
};
use crate::ops::rope::Pairing;

/// What happens to each head on the way.
#[derive(Clone, Copy)]
pub(crate) struct Prepare<'a> {
    /// RMS norm with this weight (or none) and epsilon.
    pub(crate) norm: Option<(Option<&'a [f32]>, f32)>,
    /// Rotary embedding, after the norm.
    pub(crate) turn: Option<Turn<'a>>,
}

/// Cosines and sines `[S, R/2]`: the first R dimensions turn, in pairs.
#[derive(Clone, Copy)]
pub(crate) struct Turn<'a> {
    pub(crate) cos: &'a [f32],
    pub(crate) sin: &'a [f32],
    pub(crate) pairing: Pairing,
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
                    if let Some(Turn { cos, sin, pairing }) = self.prepare.turn {
                        let half = cos.len() / seq;
                        let (cos, sin) = (&cos[s * half..][..half], &sin[s * half..][..half]);
                        match pairing {
                            Pairing::Halves => rotate(out, cos, sin),
                            Pairing::Neighbours => rotate_neighbours(out, cos, sin),
                        }
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

/// Rotates the pairs (2i, 2i + 1) of the first R dimensions of a head.
#[inline(always)]
fn rotate_neighbours(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (pairs, _) = head.as_chunks_mut::<2>();
    for (([a, b], cos), sin) in pairs.iter_mut().zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}
