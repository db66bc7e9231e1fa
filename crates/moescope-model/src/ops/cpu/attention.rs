//! Attention over cached keys and values.

use rayon::prelude::*;

use super::{
    lanes::{axpy, dot, dots},
    linear::{Shared, TASK},
    math,
    product::{Matrix, product},
    rows::softmax,
    simd::{Kernel, run},
};
use crate::ops::attention::{CausalMask, KeySpan, Scores};

/// Queries scored together.
const QUERIES: usize = 32;

/// Sizes of an attention call.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Sequences, B.
    pub(crate) batch: usize,
    /// Query heads.
    pub(crate) heads: usize,
    /// Key/value heads.
    pub(crate) kv_heads: usize,
    /// New tokens per sequence, S.
    pub(crate) seq: usize,
    /// Slots of the keys and values, C.
    pub(crate) slots: usize,
    /// Head size, D.
    pub(crate) dim: usize,
}

/// `q [B, Nq, S, D]` over `k, v [B, Nkv, C, D]`: `[B * S, Nq * D]`.
pub(crate) fn attend(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    shape: Shape,
    span: &KeySpan,
    scores: &Scores,
) -> Vec<f32> {
    let Shape { batch, heads, kv_heads, seq, slots, dim } = shape;
    let mut out = vec![0.0; q.len()];
    let shared = Shared::new(&mut out);
    let blocks = seq.div_ceil(QUERIES);
    let task = |task: usize| {
        let (b, h, block) = (task / blocks / heads, task / blocks % heads, task % blocks);
        let kv = (b * kv_heads + h * kv_heads / heads) * slots * dim;
        let queries = block * QUERIES..((block + 1) * QUERIES).min(seq);
        let q = &q[((b * heads + h) * seq + queries.start) * dim..][..queries.len() * dim];
        let (k, v) = (&k[kv..kv + span.len * dim], &v[kv..kv + span.len * dim]);
        let out = shared.at(((b * seq + queries.start) * heads + h) * dim);
        match span.mask {
            None => {
                // SAFETY: this task alone writes head h of token (b, queries.start).
                let out = unsafe { std::slice::from_raw_parts_mut(out, dim) };
                one_query(q, k, v, dim, scores, out);
            }
            Some(mask) => {
                block_of_queries(q, k, v, dim, queries.start, mask, scores, out, heads * dim)
            }
        }
    };
    let tasks = batch * heads * blocks;
    match batch * heads * seq * span.len.min(1024) * dim < 2 * TASK {
        true => (0..tasks).for_each(task),
        false => (0..tasks).into_par_iter().for_each(task),
    }
    out
}

/// One query that sees every key.
fn one_query(q: &[f32], k: &[f32], v: &[f32], dim: usize, scores: &Scores, out: &mut [f32]) {
    run(OneQuery { q, k, v, dim, scores, out });
}

struct OneQuery<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    dim: usize,
    scores: &'a Scores,
    out: &'a mut [f32],
}

impl Kernel for OneQuery<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let OneQuery { q, k, v, dim, scores, out } = self;
        let mut p = vec![0.0; k.len() / dim];
        let quads = k.chunks_exact(4 * dim);
        let rest = quads.remainder();
        let full = p.len() / 4 * 4;
        for (quad, p) in quads.zip(p.chunks_exact_mut(4)) {
            let (low, high) = quad.split_at(2 * dim);
            let four = [&low[..dim], &low[dim..], &high[..dim], &high[dim..]];
            p.copy_from_slice(&dots(four, q));
        }
        for (row, p) in rest.chunks_exact(dim).zip(&mut p[full..]) {
            *p = dot(row, q);
        }
        finish(&mut p, scores);
        softmax(&mut p);
        for (p, v) in p.iter().zip(v.chunks_exact(dim)) {
            axpy(*p, v, out);
        }
    }
}

/// Scale and soft-cap.
#[inline(always)]
fn finish(p: &mut [f32], scores: &Scores) {
    if scores.scale != 1.0 {
        for p in p.iter_mut() {
            *p *= scores.scale;
        }
    }
    if let Some(cap) = scores.soft_cap {
        for p in p {
            *p = cap * math::tanh(*p / cap);
        }
    }
}

/// Consecutive queries, the first being new token `first`, over the keys any of them sees.
///
/// `out` points at rows of `dim` elements, `stride` apart, that this task alone writes.
#[allow(clippy::too_many_arguments)] // private; the list is the block
fn block_of_queries(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    dim: usize,
    first: usize,
    mask: CausalMask,
    scores: &Scores,
    out: *mut f32,
    stride: usize,
) {
    let count = q.len() / dim;
    let (from, _) = mask.keys_of(first);
    let (_, to) = mask.keys_of(first + count - 1);
    let n = to - from;
    let mut p = vec![0.0; count * n];
    let (k, v) = (&k[from * dim..to * dim], &v[from * dim..to * dim]);
    let (queries, keys) = (Matrix::rows(q, dim), Matrix::rows(k, dim).transposed());
    // SAFETY: p is [count, n], q is [count, dim] and k is [n, dim] read transposed.
    unsafe { product(p.as_mut_ptr(), n, queries, keys, [count, n, dim]) };
    run(MaskedSoftmax { p: &mut p, n, first, from, mask, scores });
    let (p, values) = (Matrix::rows(&p, n), Matrix::rows(v, dim));
    // SAFETY: out has count rows of dim elements that this task owns; p is [count, n], v is [n, dim].
    unsafe { product(out, stride, p, values, [count, dim, n]) };
}

/// Softmax of each query's row over the keys it sees; 0 for the others.
struct MaskedSoftmax<'a> {
    p: &'a mut [f32],
    n: usize,
    first: usize,
    from: usize,
    mask: CausalMask,
    scores: &'a Scores,
}

impl Kernel for MaskedSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (i, p) in self.p.chunks_exact_mut(self.n).enumerate() {
            let (low, high) = self.mask.keys_of(self.first + i);
            let (low, high) = (low - self.from, high - self.from);
            p[..low].fill(0.0);
            p[high..].fill(0.0);
            finish(&mut p[low..high], self.scores);
            softmax(&mut p[low..high]);
        }
    }
}
