//! Routed experts on the processor: only the selected ones are read.

use pulp::Arch;
use rayon::prelude::*;

use super::{
    lanes::{Weight, axpy, dots},
    linear::{Shared, TASK, rows},
    rows::gated_row,
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
    let mut act = vec![0.0; top_k * inner];
    let arch = Arch::new();

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

    arch.dispatch(|| {
        for (both, act) in both.chunks_exact(2 * inner).zip(act.chunks_exact_mut(inner)) {
            gated_row(both, activation, act);
        }
    });

    let down_rows = |(first, out): (usize, &mut [f32])| {
        arch.dispatch(|| {
            for (k, act) in act.chunks_exact(inner).enumerate() {
                let w = &down[(expert(k) * hidden + first) * inner..][..out.len() * inner];
                let mut quads = w.chunks_exact(4 * inner);
                let mut outs = out.chunks_exact_mut(4);
                for (quad, out) in quads.by_ref().zip(outs.by_ref()) {
                    let row = |r: usize| &quad[r * inner..(r + 1) * inner];
                    let sums = dots([row(0), row(1), row(2), row(3)], act);
                    for (out, sum) in out.iter_mut().zip(sums) {
                        *out = sum.mul_add(weights[k], *out);
                    }
                }
                let rest = quads.remainder().chunks_exact(inner);
                for (row, out) in rest.zip(outs.into_remainder()) {
                    *out = dots([row], act)[0].mul_add(weights[k], *out);
                }
            }
        });
    };
    let parts = self::pieces(top_k * inner * hidden, hidden);
    if parts == 1 {
        down_rows((0, out));
    } else {
        let cut = hidden.div_ceil(parts).next_multiple_of(4);
        out.par_chunks_mut(cut).enumerate().for_each(|(i, out)| down_rows((i * cut, out)));
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
        let mut act = vec![0.0; slots.len() * inner];
        Arch::new().dispatch(|| {
            for (both, act) in both.chunks_exact(2 * inner).zip(act.chunks_exact_mut(inner)) {
                gated_row(both, activation, act);
            }
        });
        let w = &down[e * hidden * inner..(e + 1) * hidden * inner];
        rows(&act, w, inner, Shared::new(results), hidden);
    });

    let arch = Arch::new();
    out.par_chunks_mut(hidden).with_min_len(64).enumerate().for_each(|(token, out)| {
        arch.dispatch(|| {
            for k in token * top_k..(token + 1) * top_k {
                axpy(weights[k], &results[place[k] as usize * hidden..][..hidden], out);
            }
        });
    });
}
