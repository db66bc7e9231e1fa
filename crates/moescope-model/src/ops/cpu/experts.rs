//! Routed experts on the processor: only the selected ones are read.

use rayon::prelude::*;

use super::{
    lanes::{Weight, axpy, dot, dots},
    linear::{Shared, TASK, rows},
    rows::gated,
    simd::{Kernel, run},
};
use crate::ops::activation::Activation;

/// Up to this many tokens, every token's experts are read for that token alone.
const FEW_TOKENS: usize = 4;
/// Tokens handled at once, which bounds the memory for their intermediate results.
const TOKENS: usize = 2048;

/// Sizes of an experts layer.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Width of the residual stream, H.
    pub(crate) hidden: usize,
    /// Width of an expert, I.
    pub(crate) inner: usize,
    /// Experts, E.
    pub(crate) experts: usize,
    /// Experts per token, K.
    pub(crate) top_k: usize,
}

/// Sum over each token's experts of weight * down(act(gate(x)) * up(x)): `[T, H] -> [T, H]`.
///
/// `gate_up` is `[E, 2I, H]`, `down` is `[E, H, I]`, `ids` and `weights` are `[T, K]`.
pub(crate) fn selected<W: Weight>(
    x: &[f32],
    ids: &[i32],
    weights: &[f32],
    gate_up: &[W],
    down: &[W],
    shape: Shape,
    activation: Activation,
) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let tokens = x.len() / shape.hidden;
    let step = if tokens <= FEW_TOKENS { 1 } else { TOKENS };
    let blocks = x
        .chunks(step * shape.hidden)
        .zip(ids.chunks(step * shape.top_k))
        .zip(weights.chunks(step * shape.top_k))
        .zip(out.chunks_mut(step * shape.hidden));
    for (((x, ids), weights), out) in blocks {
        match step {
            1 => one_token(x, ids, weights, gate_up, down, shape, activation, out),
            _ => grouped(x, ids, weights, gate_up, down, shape, activation, out),
        }
    }
    out
}

/// One token: all its experts' rows as one list, split over the threads where it pays.
#[allow(clippy::too_many_arguments)] // private; the list is the layer
fn one_token<W: Weight>(
    x: &[f32],
    ids: &[i32],
    weights: &[f32],
    gate_up: &[W],
    down: &[W],
    shape: Shape,
    activation: Activation,
    out: &mut [f32],
) {
    let Shape { hidden, inner, top_k, .. } = shape;
    let expert = |k: usize| ids[k] as usize;
    let mut both = vec![0.0; top_k * 2 * inner];

    let pieces = pieces(top_k * 2 * inner * hidden, 2 * inner);
    let gate_up_piece = |(piece, both): (usize, &mut [f32])| {
        let (k, first) = (piece / pieces, piece % pieces * (2 * inner).div_ceil(pieces));
        let from = (expert(k) * 2 * inner + first) * hidden;
        let w = &gate_up[from..from + both.len() * hidden];
        rows(x, w, hidden, Shared::new(both), both.len());
    };
    // Experts are cut separately, so that a piece never spans two of them.
    let cut = (2 * inner).div_ceil(pieces);
    if pieces == 1 {
        both.chunks_mut(2 * inner).enumerate().for_each(gate_up_piece);
    } else {
        let list: Vec<_> = both.chunks_mut(2 * inner).flat_map(|b| b.chunks_mut(cut)).collect();
        list.into_par_iter().enumerate().for_each(gate_up_piece);
    }

    let act = gated(&both, inner, activation);

    let down_rows = |(first, out): (usize, &mut [f32])| {
        run(Down { act: &act, ids, weights, down, first, shape, out });
    };
    let parts = self::pieces(top_k * inner * hidden, hidden);
    if parts == 1 {
        down_rows((0, out));
    } else {
        let cut = hidden.div_ceil(parts).next_multiple_of(4);
        out.par_chunks_mut(cut).enumerate().for_each(|(i, out)| down_rows((i * cut, out)));
    }
}

/// Rows `first..` of one token's sum over its experts.
struct Down<'a, W> {
    act: &'a [f32],
    ids: &'a [i32],
    weights: &'a [f32],
    down: &'a [W],
    first: usize,
    shape: Shape,
    out: &'a mut [f32],
}

impl<W: Weight> Kernel for Down<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Shape { hidden, inner, .. } = self.shape;
        let n = self.out.len();
        for (k, act) in self.act.chunks_exact(inner).enumerate() {
            let (expert, weight) = (self.ids[k] as usize, self.weights[k]);
            let w = &self.down[(expert * hidden + self.first) * inner..][..n * inner];
            let quads = w.chunks_exact(4 * inner);
            let rest = quads.remainder();
            for (quad, out) in quads.zip(self.out.chunks_exact_mut(4)) {
                let (low, high) = quad.split_at(2 * inner);
                let four = [&low[..inner], &low[inner..], &high[..inner], &high[inner..]];
                for (out, sum) in out.iter_mut().zip(dots(four, act)) {
                    *out = sum.mul_add(weight, *out);
                }
            }
            for (row, out) in rest.chunks_exact(inner).zip(&mut self.out[n / 4 * 4..]) {
                *out = dot(row, act).mul_add(weight, *out);
            }
        }
    }
}

/// Into how many pieces to cut `rows` rows of `work` multiplications in all.
fn pieces(work: usize, rows: usize) -> usize {
    match work < 2 * TASK {
        true => 1,
        false => (work / TASK).min(4 * rayon::current_num_threads()).min(rows).max(1),
    }
}

/// Many tokens: grouped by expert, one blocked multiplication per expert.
#[allow(clippy::too_many_arguments)] // private; the list is the layer
fn grouped<W: Weight>(
    x: &[f32],
    ids: &[i32],
    weights: &[f32],
    gate_up: &[W],
    down: &[W],
    shape: Shape,
    activation: Activation,
    out: &mut [f32],
) {
    let Shape { hidden, inner, experts, top_k } = shape;
    // Counting sort: `slots[start[e]..start[e + 1]]` are the (token, rank) pairs of expert e.
    let mut start = vec![0; experts + 1];
    ids.iter().for_each(|&e| start[e as usize + 1] += 1);
    (0..experts).for_each(|e| start[e + 1] += start[e]);
    let mut next = start.clone();
    let mut slots = vec![0u32; ids.len()];
    let mut place = vec![0u32; ids.len()];
    for (slot, &e) in ids.iter().enumerate() {
        let at = &mut next[e as usize];
        slots[*at] = slot as u32;
        place[slot] = *at as u32;
        *at += 1;
    }

    let mut results = vec![0.0; ids.len() * hidden];
    let mut rest = results.as_mut_slice();
    let mut tasks = Vec::with_capacity(experts);
    for e in 0..experts {
        let count = start[e + 1] - start[e];
        let (mine, others) = rest.split_at_mut(count * hidden);
        rest = others;
        if count > 0 {
            tasks.push((e, &slots[start[e]..start[e + 1]], mine));
        }
    }
    tasks.into_par_iter().with_max_len(1).for_each(|(e, slots, results)| {
        let mut gathered = Vec::with_capacity(slots.len() * hidden);
        for &slot in slots {
            let token = slot as usize / top_k;
            gathered.extend_from_slice(&x[token * hidden..(token + 1) * hidden]);
        }
        let mut both = vec![0.0; slots.len() * 2 * inner];
        let w = &gate_up[e * 2 * inner * hidden..(e + 1) * 2 * inner * hidden];
        rows(&gathered, w, hidden, Shared::new(&mut both), 2 * inner);
        let act = gated(&both, inner, activation);
        let w = &down[e * hidden * inner..(e + 1) * hidden * inner];
        rows(&act, w, inner, Shared::new(results), hidden);
    });

    out.par_chunks_mut(hidden).with_min_len(64).enumerate().for_each(|(token, out)| {
        let slots = token * top_k..(token + 1) * top_k;
        run(Combine {
            weights: &weights[slots.clone()],
            place: &place[slots],
            results: &results,
            out,
        });
    });
}

/// Weighted sum of a token's results.
struct Combine<'a> {
    weights: &'a [f32],
    place: &'a [u32],
    results: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let hidden = self.out.len();
        for (weight, place) in self.weights.iter().zip(self.place) {
            axpy(*weight, &self.results[*place as usize * hidden..][..hidden], self.out);
        }
    }
}
