//! Columns of projected rows as heads: cut out, normalised, rotated and laid out head by head.

use burn::backend::TensorMetadata;
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{
    cubes::{UNITS, cube_index, cubes, sum_of_units},
    empty,
};
use crate::ops::rope::Pairing;

/// Which columns become which heads, and what is done to them.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct HeadsCall {
    /// First column.
    pub(in crate::ops) column: usize,
    /// The heads, `[B, N, S, D]`.
    pub(in crate::ops) dims: [usize; 4],
    /// RMS norm over each head.
    pub(in crate::ops) norm: Option<Norm>,
    /// Rotary embedding, after the norm.
    pub(in crate::ops) turn: Option<Turn>,
}

/// RMS norm over each head.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Norm {
    /// Added to the mean square.
    pub(in crate::ops) eps: f32,
    /// Whether there is a weight per dimension.
    pub(in crate::ops) weighted: bool,
}

/// Rotary embedding.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Turn {
    /// Row of the first token's cosines and sines.
    pub(in crate::ops) first: usize,
    /// Pairs that turn; dimensions beyond twice as many stay.
    pub(in crate::ops) pairs: usize,
    /// Which dimensions are a pair.
    pub(in crate::ops) pairing: Pairing,
}

/// One cube: one head of one token.
#[cube(launch)]
fn heads_kernel(
    x: &Tensor<f32>,
    weight: &Tensor<f32>,
    cos: &Tensor<f32>,
    sin: &Tensor<f32>,
    out: &mut Tensor<f32>,
    width: u32,
    column: u32,
    count: u32,
    heads: u32,
    seq: u32,
    dim: u32,
    first: u32,
    pairs: u32,
    eps: f32,
    #[comptime] normed: bool,
    #[comptime] weighted: bool,
    #[comptime] turned: bool,
    #[comptime] neighbours: bool,
) {
    let at = cube_index();
    if at >= count {
        terminate!();
    }
    let (token, head) = (at / heads, at % heads);
    let (batch, position) = (token / seq, token % seq);
    let from = token * width + column + head * dim;
    let to = ((batch * heads + head) * seq + position) * dim;
    let mut inverse = 1.0f32;
    if comptime!(normed) {
        let mut partial = 0.0f32;
        let mut d = UNIT_POS_X;
        while d < dim {
            let value = x[(from + d) as usize];
            partial += value * value;
            d += UNITS;
        }
        inverse = 1.0f32 / (sum_of_units(partial) / f32::cast_from(dim) + eps).sqrt();
    }
    let mut d = UNIT_POS_X;
    while d < dim {
        let mut value = x[(from + d) as usize] * inverse;
        if comptime!(weighted) {
            value *= weight[d as usize];
        }
        if comptime!(turned) {
            if d < 2 * pairs {
                let mut pair = d % pairs;
                let mut low = d < pairs;
                if comptime!(neighbours) {
                    pair = d / 2;
                    low = d & 1 == 0;
                }
                let mut distance = pairs;
                if comptime!(neighbours) {
                    distance = 1u32.runtime();
                }
                let mut partner = d + distance;
                if !low {
                    partner = d - distance;
                }
                let mut other = x[(from + partner) as usize] * inverse;
                if comptime!(weighted) {
                    other *= weight[partner as usize];
                }
                let angle = ((first + position) * pairs + pair) as usize;
                if low {
                    value = value * cos[angle] - other * sin[angle];
                } else {
                    value = value * cos[angle] + other * sin[angle];
                }
            }
        }
        out[(to + d) as usize] = value;
        d += UNITS;
    }
}

pub(super) fn launch(
    x: CubeTensor,
    weight: CubeTensor,
    cos: CubeTensor,
    sin: CubeTensor,
    call: HeadsCall,
) -> CubeTensor {
    let (x, weight) = (into_contiguous(x), into_contiguous(weight));
    let (cos, sin) = (into_contiguous(cos), into_contiguous(sin));
    let [batch, heads, seq, dim] = call.dims;
    let out = empty(&x, call.dims, x.dtype);
    let width = x.shape()[1];
    let count = batch * seq * heads;
    heads_kernel::launch(
        &x.client.clone(),
        cubes(count),
        CubeDim::new_1d(UNITS),
        x.into_tensor_arg(),
        weight.into_tensor_arg(),
        cos.into_tensor_arg(),
        sin.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        width as u32,
        call.column as u32,
        count as u32,
        heads as u32,
        seq as u32,
        dim as u32,
        call.turn.map_or(0, |turn| turn.first as u32),
        call.turn.map_or(0, |turn| turn.pairs as u32),
        call.norm.map_or(0.0, |norm| norm.eps),
        call.norm.is_some(),
        call.norm.is_some_and(|norm| norm.weighted),
        call.turn.is_some(),
        call.turn.is_some_and(|turn| turn.pairing == Pairing::Neighbours),
    );
    out
}
