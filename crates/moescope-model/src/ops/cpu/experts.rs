//! Routed experts on the processor: only the selected ones are read.

use rayon::prelude::*;

use super::{
    lanes::{Weight, axpy, dot, dots, sum_of_squares},
    linear::{Shared, TASK, rows},
    rows::{add_to_rows, gated},
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

/// Matrices of equal size, one per expert, in slices of equally many experts but for the last.
#[derive(Clone, Copy)]
pub(crate) struct Stack<'a, W> {
    pub(crate) slices: &'a [&'a [W]],
    /// Experts of a slice.
    pub(crate) each: usize,
    /// Elements of a matrix.
    pub(crate) size: usize,
}

impl<'a, W> Stack<'a, W> {
    /// The matrix of one expert.
    #[inline(always)]
    fn of(&self, expert: usize) -> &'a [W] {
        &self.slices[expert / self.each][expert % self.each * self.size..][..self.size]
    }
}

/// An experts layer and what it is applied to.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a, W> {
    /// `[T, H]`.
    pub(crate) x: &'a [f32],
    /// `[T, K]`.
    pub(crate) ids: &'a [i32],
    /// `[T, K]`.
    pub(crate) weights: &'a [f32],
    /// `[E, 2I, H]`.
    pub(crate) gate_up: Stack<'a, W>,
    /// `[E, H, I]`.
    pub(crate) down: Stack<'a, W>,
    /// `[E, 2I]` and `[E, H]`, added to the products.
    pub(crate) biases: Option<(&'a [f32], &'a [f32])>,
    /// The sizes of all these.
    pub(crate) shape: Shape,
    /// Applied to the gate.
    pub(crate) activation: Activation,
}

/// What a layer computed.
pub(crate) struct Mixed {
    /// `[T, H]`.
    pub(crate) sum: Vec<f32>,
    /// L2 norm of each expert's output before its weight, `[T, K]`, if asked for.
    pub(crate) norms: Option<Vec<f32>>,
}

/// Sum over each token's experts of weight * down(act(gate(x)) * up(x)).
pub(crate) fn selected<W: Weight>(call: Call<'_, W>, norms: bool) -> Mixed {
    let Shape { hidden, top_k, .. } = call.shape;
    let mut sum = vec![0.0; call.x.len()];
    let mut norms = norms.then(|| vec![0.0; call.ids.len()]);
    // The norms need every output by itself, which the way of few tokens never has.
    let few = call.x.len() / hidden <= FEW_TOKENS && norms.is_none();
    let step = if few { 1 } else { TOKENS };
    let blocks = call
        .x
        .chunks(step * hidden)
        .zip(call.ids.chunks(step * top_k))
        .zip(call.weights.chunks(step * top_k))
        .zip(sum.chunks_mut(step * hidden));
    for (block, (((x, ids), weights), sum)) in blocks.enumerate() {
        let call = Call { x, ids, weights, ..call };
        if few {
            one_token(call, sum);
            continue;
        }
        let norms = norms.as_mut().map(|norms| &mut norms[block * step * top_k..][..ids.len()]);
        grouped(call, sum, norms);
    }
    Mixed { sum, norms }
}

/// One token: all its experts' rows, split over the threads where it pays.
fn one_token<W: Weight>(call: Call<'_, W>, out: &mut [f32]) {
    let Shape { hidden, inner, top_k, .. } = call.shape;
    let both_rows = 2 * inner;
    let mut both = vec![0.0; top_k * both_rows];
    let cut = rows_per_task(top_k * both_rows * hidden, both_rows);
    let gate_up_rows = |(expert, first, out): (i32, usize, &mut [f32])| {
        let w = &call.gate_up.of(expert as usize)[first * hidden..][..out.len() * hidden];
        rows(call.x, w, hidden, Shared::new(out), out.len());
    };
    if cut == both_rows {
        both.chunks_mut(both_rows).zip(call.ids).for_each(|(out, e)| gate_up_rows((*e, 0, out)));
    } else {
        // Experts are cut separately, so that no task spans two of them.
        let tasks: Vec<_> = both
            .chunks_mut(both_rows)
            .zip(call.ids)
            .flat_map(|(out, e)| {
                out.chunks_mut(cut).enumerate().map(move |(i, out)| (*e, i * cut, out))
            })
            .collect();
        tasks.into_par_iter().for_each(gate_up_rows);
    }

    if let Some((bias, _)) = call.biases {
        for (both, expert) in both.chunks_mut(both_rows).zip(call.ids) {
            add_to_rows(both, &bias[*expert as usize * both_rows..][..both_rows]);
        }
    }
    let act = gated(&both, inner, call.activation);

    let down_rows = |(first, out): (usize, &mut [f32])| {
        run(Down { act: &act, call, first, out });
    };
    let cut = rows_per_task(top_k * inner * hidden, hidden);
    if cut == hidden {
        down_rows((0, out));
    } else {
        out.par_chunks_mut(cut).enumerate().for_each(|(i, out)| down_rows((i * cut, out)));
    }
}

/// How many of `rows` rows, `work` multiplications in all, make a task; all of them where more threads
/// don't pay.
fn rows_per_task(work: usize, rows: usize) -> usize {
    match (work / TASK).min(4 * rayon::current_num_threads()) {
        0 | 1 => rows,
        tasks => rows.div_ceil(tasks).next_multiple_of(4).min(rows),
    }
}

/// Rows `first..` of one token's sum over its experts.
struct Down<'a, W> {
    act: &'a [f32],
    call: Call<'a, W>,
    first: usize,
    out: &'a mut [f32],
}

impl<W: Weight> Kernel for Down<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Call { ids, weights, down, shape: Shape { hidden, inner, .. }, biases, .. } = self.call;
        let n = self.out.len();
        if let Some((_, bias)) = biases {
            for (id, weight) in ids.iter().zip(weights) {
                axpy(*weight, &bias[*id as usize * hidden + self.first..][..n], self.out);
            }
        }
        for (k, act) in self.act.chunks_exact(inner).enumerate() {
            let (expert, weight) = (ids[k] as usize, weights[k]);
            let w = &down.of(expert)[self.first * inner..][..n * inner];
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

/// Many tokens: grouped by expert, one blocked multiplication per expert.
fn grouped<W: Weight>(call: Call<'_, W>, out: &mut [f32], norms: Option<&mut [f32]>) {
    let Call { x, ids, weights, gate_up, down, biases, shape, activation } = call;
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
        rows(&gathered, gate_up.of(e), hidden, Shared::new(&mut both), 2 * inner);
        if let Some((bias, _)) = biases {
            add_to_rows(&mut both, &bias[e * 2 * inner..][..2 * inner]);
        }
        let act = gated(&both, inner, activation);
        rows(&act, down.of(e), inner, Shared::new(results), hidden);
        if let Some((_, bias)) = biases {
            add_to_rows(results, &bias[e * hidden..][..hidden]);
        }
    });

    if let Some(norms) = norms {
        run(Norms { place: &place, results: &results, hidden, norms });
    }

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

/// L2 norms of the results, in the order of the slots.
struct Norms<'a> {
    place: &'a [u32],
    results: &'a [f32],
    hidden: usize,
    norms: &'a mut [f32],
}

impl Kernel for Norms<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (norm, place) in self.norms.iter_mut().zip(self.place) {
            let result = &self.results[*place as usize * self.hidden..][..self.hidden];
            *norm = sum_of_squares(result).sqrt();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0).collect()
    }

    /// However many threads share one token's rows, and whether or not the rows divide evenly.
    #[test]
    fn the_number_of_threads_changes_nothing() {
        for (hidden, inner) in [(301, 257), (333, 1023), (4100, 257)] {
            let shape = Shape { hidden, inner, experts: 5, top_k: 3 };
            let x = values(hidden, 1);
            let gate_up = values(5 * 2 * inner * hidden, 2);
            let down = values(5 * hidden * inner, 3);
            let (ids, weights) = ([4, 0, 2], [0.5, 0.3, 0.2]);
            let with_threads = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let call = Call {
                        x: &x,
                        ids: &ids,
                        weights: &weights,
                        gate_up: Stack { slices: &[&gate_up], each: 5, size: 2 * inner * hidden },
                        down: Stack { slices: &[&down], each: 5, size: hidden * inner },
                        biases: None,
                        shape,
                        activation: Activation::Silu,
                    };
                    selected(call, false).sum
                })
            };
            let alone = with_threads(1);
            for threads in [2, 3, 5, 13, 48] {
                let shared = with_threads(threads);
                for (a, b) in alone.iter().zip(&shared) {
                    let close = (a - b).abs() <= 1e-4 * a.abs().max(1.0);
                    assert!(close, "{threads} threads, {hidden} x {inner}: {a} {b}");
                }
            }
        }
    }
}
