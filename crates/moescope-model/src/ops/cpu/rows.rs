//! Row-wise kernels: norms, gated activations, soft-capping, softmax, log-probabilities.

use rayon::prelude::*;

use super::{
    lanes, math,
    simd::{Kernel, RowKernel, by_rows, run},
};
use crate::ops::activation::Activation;

/// Logits scored on one thread.
const SCORED: usize = 1 << 16;

/// RMS norm of every row of `x`: x / sqrt(mean(x^2) + eps), times `weight` if given.
pub(crate) fn rms_norm(x: &[f32], width: usize, weight: Option<&[f32]>, eps: f32) -> Vec<f32> {
    struct Norm<'a>(&'a [f32], usize, Option<&'a [f32]>, f32);

    impl RowKernel for Norm<'_> {
        #[inline(always)]
        fn rows(&self, first: usize, out: &mut [f32]) {
            let Norm(x, width, weight, eps) = *self;
            let rows = x[first * width..].chunks_exact(width);
            for (x, out) in rows.zip(out.chunks_exact_mut(width)) {
                norm_row(x, weight, eps, out);
            }
        }
    }

    let mut out = vec![0.0; x.len()];
    by_rows(&mut out, width, &Norm(x, width, weight, eps));
    out
}

/// `(residual + rms_norm(x)) * scale`, row by row.
pub(crate) fn add_rms_norm(
    residual: &[f32],
    x: &[f32],
    width: usize,
    weight: &[f32],
    eps: f32,
    scale: f32,
) -> Vec<f32> {
    struct AddNorm<'a> {
        residual: &'a [f32],
        x: &'a [f32],
        width: usize,
        weight: &'a [f32],
        eps: f32,
        scale: f32,
    }

    impl RowKernel for AddNorm<'_> {
        #[inline(always)]
        fn rows(&self, first: usize, out: &mut [f32]) {
            let rows = self.x[first * self.width..].chunks_exact(self.width);
            let residual = self.residual[first * self.width..].chunks_exact(self.width);
            for ((x, residual), out) in rows.zip(residual).zip(out.chunks_exact_mut(self.width)) {
                norm_row(x, Some(self.weight), self.eps, out);
                for (out, residual) in out.iter_mut().zip(residual) {
                    *out = (residual + *out) * self.scale;
                }
            }
        }
    }

    let mut out = vec![0.0; x.len()];
    by_rows(&mut out, width, &AddNorm { residual, x, width, weight, eps, scale });
    out
}

/// RMS norm of one row.
#[inline(always)]
pub(crate) fn norm_row(x: &[f32], weight: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    let mean = lanes::sum_of_squares(x) / x.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    match weight {
        Some(weight) => {
            for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
                *out = x * scale * w;
            }
        }
        None => {
            for (out, x) in out.iter_mut().zip(x) {
                *out = x * scale;
            }
        }
    }
}

/// `act(gate) * up` for rows `[gate | up]` of twice `width`.
pub(crate) fn gated(gate_up: &[f32], width: usize, activation: Activation) -> Vec<f32> {
    struct Gated<'a>(&'a [f32], usize, Activation);

    impl RowKernel for Gated<'_> {
        #[inline(always)]
        fn rows(&self, first: usize, out: &mut [f32]) {
            let Gated(gate_up, width, activation) = *self;
            let rows = gate_up[2 * first * width..].chunks_exact(2 * width);
            for (row, out) in rows.zip(out.chunks_exact_mut(width)) {
                gated_row(row, activation, out);
            }
        }
    }

    let mut out = vec![0.0; gate_up.len() / 2];
    by_rows(&mut out, width, &Gated(gate_up, width, activation));
    out
}

/// One row of [`gated`].
#[inline(always)]
pub(crate) fn gated_row(gate_up: &[f32], activation: Activation, out: &mut [f32]) {
    let (gate, up) = gate_up.split_at(out.len());
    match activation {
        Activation::GeluTanh => {
            for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                *out = math::gelu_tanh(*gate) * up;
            }
        }
        Activation::Silu => {
            for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                *out = math::silu(*gate) * up;
            }
        }
        Activation::ClampedSwish { alpha, limit } => {
            for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                let gate = if *gate > limit { limit } else { *gate };
                let up = if *up > limit { limit } else { *up };
                let up = if up < -limit { -limit } else { up };
                *out = math::swish(gate, alpha) * (up + 1.0);
            }
        }
    }
}

/// Adds `bias` to every row of `x`.
pub(crate) fn add_to_rows(x: &mut [f32], bias: &[f32]) {
    struct Add<'a>(&'a [f32]);

    impl RowKernel for Add<'_> {
        #[inline(always)]
        fn rows(&self, _: usize, rows: &mut [f32]) {
            for row in rows.chunks_exact_mut(self.0.len()) {
                for (x, bias) in row.iter_mut().zip(self.0) {
                    *x += bias;
                }
            }
        }
    }

    by_rows(x, bias.len(), &Add(bias));
}

/// `cap * tanh(x / cap)`, in place.
pub(crate) fn soft_cap(x: &mut [f32], cap: f32) {
    struct SoftCap(f32);

    impl RowKernel for SoftCap {
        #[inline(always)]
        fn rows(&self, _: usize, x: &mut [f32]) {
            let inverse = 1.0 / self.0;
            for x in x {
                *x = self.0 * math::tanh(*x * inverse);
            }
        }
    }

    by_rows(x, 1, &SoftCap(cap));
}

/// Softmax in place.
#[inline(always)]
pub(crate) fn softmax(row: &mut [f32]) {
    let max = lanes::maximum(row);
    for x in row.iter_mut() {
        *x = math::exp(*x - max);
    }
    let norm = 1.0 / lanes::sum(row);
    for x in row {
        *x *= norm;
    }
}

/// Log-probability of one target per row of logits `[T, V]`, nats.
pub(crate) fn log_prob(logits: &[f32], vocab: usize, targets: &[u32]) -> Vec<f32> {
    struct Row<'a>(&'a [f32], u32);

    impl Kernel for Row<'_> {
        type Output = f32;

        #[inline(always)]
        fn run(self) -> f32 {
            let Row(row, target) = self;
            let max = lanes::maximum(row);
            row[target as usize] - max - lanes::sum_of_exp(row, max).ln()
        }
    }

    let row = |(row, &target): (&[f32], &u32)| run(Row(row, target));
    match logits.len() <= SCORED {
        true => logits.chunks_exact(vocab).zip(targets).map(row).collect(),
        false => logits.par_chunks_exact(vocab).zip(targets).map(row).collect(),
    }
}
