//! Attention over cached keys and values.

use rayon::prelude::*;

use super::{
    lanes::{axpy, dot, dots, maximum, sum},
    linear::{Shared, TASK},
    math,
    product::{Matrix, product},
    simd::{Kernel, run},
};
use crate::ops::attention::{CausalMask, KeySpan};

/// Queries scored together.
const QUERIES: usize = 32;
/// Query heads on one key head from which a single token's are multiplied together: below, reading
/// the keys once for four dot products at a time is as good.
const MANY_HEADS: usize = 8;

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
    /// Size of a query and a key, D.
    pub(crate) dim: usize,
    /// Size of a value, Dv.
    pub(crate) value_dim: usize,
}

/// How scores are made from dot products; as [`crate::ops::attention::Scores`].
pub(crate) struct Scores<'a> {
    pub(crate) scale: f32,
    pub(crate) soft_cap: Option<f32>,
    /// `[Nq]`.
    pub(crate) sinks: Option<&'a [f32]>,
}

impl Scores<'_> {
    fn sink(&self, head: usize) -> Option<f32> {
        self.sinks.map(|sinks| sinks[head])
    }
}

/// The keys and values of one key/value head that a task may see.
#[derive(Clone, Copy)]
struct Cached<'a> {
    /// `[L, D]`.
    k: &'a [f32],
    dim: usize,
    /// `[L, stride]`, of which the first Dv columns count.
    v: &'a [f32],
    stride: usize,
}

impl Cached<'_> {
    /// Those of keys `from..to`.
    fn part(self, from: usize, to: usize) -> Self {
        let (k, v) = (
            &self.k[from * self.dim..to * self.dim],
            &self.v[from * self.stride..to * self.stride],
        );
        Cached { k, v, ..self }
    }

    fn len(&self) -> usize {
        self.k.len() / self.dim
    }
}

/// `q [B, Nq, S, D]` over `k [B, Nkv, C, D]` and `v [B, Nkv, C, Dv]`: `[B * S, Nq * Dv]`. Without `v` values
/// are the first columns of the keys.
pub(crate) fn attend(
    q: &[f32],
    k: &[f32],
    v: Option<&[f32]>,
    shape: Shape,
    span: &KeySpan,
    scores: &Scores<'_>,
) -> Vec<f32> {
    let Shape { batch, heads, kv_heads, seq, slots, dim, value_dim } = shape;
    let mut out = vec![0.0; batch * heads * seq * value_dim];
    let shared = Shared::new(&mut out);
    let (v, stride) = v.map_or((k, dim), |v| (v, value_dim));
    let cached = |b: usize, kv_head: usize| {
        let first = (b * kv_heads + kv_head) * slots;
        let whole = Cached { k, dim, v, stride };
        whole.part(first, first + span.len)
    };
    let work = batch * heads * seq * span.len.min(1024) * dim;
    let group = heads / kv_heads;
    let Some(mask) = span.mask else {
        // One new token per sequence: its heads lie side by side, in `q` and in the result.
        let together = if group < MANY_HEADS { 1 } else { QUERIES.min(group) };
        let blocks = group.div_ceil(together);
        let task = |task: usize| {
            let (b, kv_head, block) =
                (task / blocks / kv_heads, task / blocks % kv_heads, task % blocks);
            let first = kv_head * group + block * together;
            let count = together.min((kv_head + 1) * group - first);
            let q = &q[(b * heads + first) * dim..][..count * dim];
            // SAFETY: this task alone writes these heads of sequence b.
            let out = unsafe {
                let out = shared.at((b * heads + first) * value_dim);
                std::slice::from_raw_parts_mut(out, count * value_dim)
            };
            match count {
                1 => run(OneQuery { q, cached: cached(b, kv_head), scores, head: first, out }),
                _ => {
                    let rows = Rows { q, first, step: 1, causal: None };
                    let out = Shared::new(out);
                    rows.attend(cached(b, kv_head), scores, value_dim, out, value_dim);
                }
            }
        };
        over(batch * kv_heads * blocks, work, task);
        return out;
    };
    let blocks = seq.div_ceil(QUERIES);
    let task = |task: usize| {
        let (b, h, block) = (task / blocks / heads, task / blocks % heads, task % blocks);
        let queries = block * QUERIES..((block + 1) * QUERIES).min(seq);
        let q = &q[((b * heads + h) * seq + queries.start) * dim..][..queries.len() * dim];
        let rows = Rows { q, first: h, step: 0, causal: Some((mask, queries.start)) };
        // This task alone writes head h of these tokens.
        let out = shared.from(((b * seq + queries.start) * heads + h) * value_dim);
        rows.attend(cached(b, h / group), scores, value_dim, out, heads * value_dim);
    };
    over(batch * heads * blocks, work, task);
    out
}

/// Runs tasks, on many threads where it pays.
fn over(tasks: usize, work: usize, task: impl Fn(usize) + Send + Sync) {
    match work < 2 * TASK {
        true => (0..tasks).for_each(task),
        false => (0..tasks).into_par_iter().for_each(task),
    }
}

/// One query that sees every key.
struct OneQuery<'a> {
    q: &'a [f32],
    cached: Cached<'a>,
    scores: &'a Scores<'a>,
    head: usize,
    out: &'a mut [f32],
}

impl Kernel for OneQuery<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let OneQuery { q, cached, scores, head, out } = self;
        let Cached { k, dim, v, stride } = cached;
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
        softmax(&mut p, scores.sink(head));
        for (p, v) in p.iter().zip(v.chunks_exact(stride)) {
            axpy(*p, &v[..out.len()], out);
        }
    }
}

/// Scale and soft-cap.
#[inline(always)]
fn finish(p: &mut [f32], scores: &Scores<'_>) {
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

/// Softmax in place, over one more score than there are.
#[inline(always)]
fn softmax(row: &mut [f32], sink: Option<f32>) {
    let Some(sink) = sink else { return super::rows::softmax(row) };
    let max = maximum(row);
    let max = if sink > max { sink } else { max };
    for x in row.iter_mut() {
        *x = math::exp(*x - max);
    }
    let norm = 1.0 / (sum(row) + math::exp(sink - max));
    for x in row {
        *x *= norm;
    }
}

/// Queries multiplied together: consecutive tokens of one head, or the heads of one token.
#[derive(Clone, Copy)]
struct Rows<'a> {
    /// `[M, D]`.
    q: &'a [f32],
    /// Head of the first.
    first: usize,
    /// Heads from one to the next.
    step: usize,
    /// The mask and the first's index among the new tokens; `None` where all see everything.
    causal: Option<(CausalMask, usize)>,
}

impl Rows<'_> {
    /// Keys that query `i` sees: from the first to before the second.
    #[inline(always)]
    fn keys_of(&self, i: usize, len: usize) -> (usize, usize) {
        self.causal.map_or((0, len), |(mask, first)| mask.keys_of(first + i))
    }

    /// Fills rows of `value_dim` elements, `stride` apart, that the caller owns.
    fn attend(
        self,
        cached: Cached<'_>,
        scores: &Scores<'_>,
        value_dim: usize,
        out: Shared,
        stride: usize,
    ) {
        let count = self.q.len() / cached.dim;
        let (from, _) = self.keys_of(0, cached.len());
        let (_, to) = self.keys_of(count - 1, cached.len());
        let n = to - from;
        let mut p = vec![0.0; count * n];
        let Cached { k, dim, v, stride: value_stride } = cached.part(from, to);
        let (queries, keys) = (Matrix::rows(self.q, dim), Matrix::rows(k, dim).transposed());
        // SAFETY: p is [count, n], q is [count, dim] and k is [n, dim] read transposed.
        unsafe { product(p.as_mut_ptr(), n, queries, keys, [count, n, dim]) };
        run(MaskedSoftmax { p: &mut p, n, from, rows: self, scores });
        let (p, values) = (Matrix::rows(&p, n), Matrix::rows(v, value_stride));
        // SAFETY: out has count rows of value_dim elements that the caller owns; p is [count, n]; v has
        // n rows of at least value_dim elements.
        unsafe { product(out.at(0), stride, p, values, [count, value_dim, n]) };
    }
}

/// Softmax of each query's row over the keys it sees; 0 for the others.
struct MaskedSoftmax<'a> {
    p: &'a mut [f32],
    n: usize,
    /// The key the columns start at.
    from: usize,
    rows: Rows<'a>,
    scores: &'a Scores<'a>,
}

impl Kernel for MaskedSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (i, p) in self.p.chunks_exact_mut(self.n).enumerate() {
            let (low, high) = self.rows.keys_of(i, self.n);
            let (low, high) = (low - self.from, high - self.from);
            p[..low].fill(0.0);
            p[high..].fill(0.0);
            finish(&mut p[low..high], self.scores);
            let head = self.rows.first + i * self.rows.step;
            softmax(&mut p[low..high], self.scores.sink(head));
        }
    }
}
