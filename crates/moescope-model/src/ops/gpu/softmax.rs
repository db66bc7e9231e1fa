//! Softmax of attention scores over the keys that each query sees: scaled, capped, masked and normalised in one
//! dispatch, without a mask in memory.

use burn::{backend::TensorMetadata, tensor::DType};
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{ir::AddressType, prelude::*};

use super::{
    cubes::{UNITS, cube_index, cubes, max_of_units, sum_of_units},
    empty,
};
use crate::ops::attention::CausalMask;

/// What scores are and who sees what.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct SoftmaxCall {
    /// New tokens, S: rows of the scores are [.., S] queries.
    pub(in crate::ops) seq: usize,
    /// Query heads, Nq: rows are [B, Nq, S].
    pub(in crate::ops) heads: usize,
    /// Which keys a query sees.
    pub(in crate::ops) mask: CausalMask,
    /// Multiplies dot products.
    pub(in crate::ops) scale: f32,
    /// `cap * tanh(score / cap)`.
    pub(in crate::ops) soft_cap: Option<f32>,
    /// Whether each head has a sink.
    pub(in crate::ops) sinks: bool,
}

/// A score as it enters the softmax.
#[cube]
fn finished(dot: f32, scale: f32, cap: f32, #[comptime] capped: bool) -> f32 {
    let mut score = dot * scale;
    if comptime!(capped) {
        score = (score / cap).tanh() * cap;
    }
    score
}

/// One cube: one query of one head.
#[cube(launch, address_type = "dynamic")]
fn softmax_kernel(
    dots: &Tensor<f32>,
    sinks: &Tensor<f32>,
    out: &mut Tensor<f32>,
    rows: u32,
    keys: u32,
    seq: u32,
    heads: u32,
    offset: u32,
    window: u32,
    scale: f32,
    cap: f32,
    #[comptime] capped: bool,
    #[comptime] sunk: bool,
) {
    let row = cube_index();
    if row >= rows {
        terminate!();
    }
    let from = row as usize * keys as usize;
    let head = row / seq % heads;
    // Keys seen: from `low` to before `high`.
    let mut high = offset + row % seq + 1;
    if high > keys {
        high = keys;
    }
    let mut low = 0u32;
    if high > window {
        low = high - window;
    }
    let mut highest = finished(dots[from + low as usize], scale, cap, capped);
    let mut i = low + UNIT_POS_X;
    while i < high {
        let score = finished(dots[from + i as usize], scale, cap, capped);
        if score > highest {
            highest = score;
        }
        i += UNITS;
    }
    if comptime!(sunk) {
        if sinks[head as usize] > highest {
            highest = sinks[head as usize];
        }
    }
    let max = max_of_units(highest);
    let mut partial = 0.0f32;
    let mut i = low + UNIT_POS_X;
    while i < high {
        partial += (finished(dots[from + i as usize], scale, cap, capped) - max).exp();
        i += UNITS;
    }
    let mut sum = sum_of_units(partial);
    if comptime!(sunk) {
        sum += (sinks[head as usize] - max).exp();
    }
    let norm = 1.0f32 / sum;
    let mut i = UNIT_POS_X;
    while i < keys {
        let mut weight = 0.0f32;
        if i >= low && i < high {
            weight = (finished(dots[from + i as usize], scale, cap, capped) - max).exp() * norm;
        }
        out[from + i as usize] = weight;
        i += UNITS;
    }
}

pub(super) fn launch(dots: CubeTensor, sinks: CubeTensor, call: SoftmaxCall) -> CubeTensor {
    let (dots, sinks) = (into_contiguous(dots), into_contiguous(sinks));
    let shape = [dots.shape()[0], dots.shape()[1], dots.shape()[2], dots.shape()[3]];
    let out = empty(&dots, shape, DType::F32);
    let keys = shape[3];
    let rows = dots.shape().num_elements() / keys;
    softmax_kernel::launch(
        &dots.client.clone(),
        cubes(rows),
        CubeDim::new_1d(UNITS),
        AddressType::from_len(dots.shape().num_elements()),
        dots.into_tensor_arg(),
        sinks.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        rows as u32,
        keys as u32,
        call.seq as u32,
        call.heads as u32,
        call.mask.offset as u32,
        // A window as wide as all keys hides none.
        call.mask.window.map_or(keys, |window| window.min(keys)) as u32,
        call.scale,
        call.soft_cap.unwrap_or(1.0),
        call.soft_cap.is_some(),
        call.sinks,
    );
    out
}
