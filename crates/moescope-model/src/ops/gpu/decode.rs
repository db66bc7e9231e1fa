//! Attention of one new token, reading cached keys and values where they lie (FlashDecoding: T. Dao et al.,
//! 2023; softmax over parts: M. Milakov and N. Gimelshein, arXiv 1805.02867).
//!
//! Keys are cut into stretches, each the work of one cube per query head, so that a long context keeps a whole
//! GPU busy; a second dispatch joins the stretches where there are several.

use burn::{backend::TensorMetadata, tensor::DType};
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{ir::AddressType, prelude::*};

use super::{
    cubes::{UNITS, cube_index, cubes, max_of_units, sum_of_units},
    empty,
};

/// Keys of one cube.
const STRETCH: u32 = 256;
/// Keys scored at once.
const KEYS: u32 = 32;
/// Dimensions of a key held at once.
const PART: u32 = 64;
/// Units that share one dot product.
const SHARES: u32 = UNITS / KEYS;

/// One new token over cached keys.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct DecodeCall {
    /// Valid keys, from the first slot on.
    pub(in crate::ops) len: usize,
    /// Columns of a value that count, Dv.
    pub(in crate::ops) value_dim: usize,
    /// Multiplies dot products.
    pub(in crate::ops) scale: f32,
    /// `cap * tanh(score / cap)`.
    pub(in crate::ops) soft_cap: Option<f32>,
    /// Whether each head has a sink.
    pub(in crate::ops) sinks: bool,
}

/// One cube: a stretch of keys for one query head of one sequence. Writes the sum of values weighted by
/// `exp(score - max)`, with the maximum and the sum of weights beside it; the result itself if there is one stretch.
#[cube(launch, address_type = "dynamic")]
fn stretch_kernel(
    q: &Tensor<f32>,
    k: &Tensor<f32>,
    v: &Tensor<f32>,
    sinks: &Tensor<f32>,
    sums: &mut Tensor<f32>,
    stats: &mut Tensor<f32>,
    count: u32,
    stretches: u32,
    heads: u32,
    kv_heads: u32,
    slots: u32,
    len: u32,
    dim: u32,
    value_stride: u32,
    value_dim: u32,
    scale: f32,
    cap: f32,
    #[comptime] capped: bool,
    #[comptime] sunk: bool,
    #[comptime] alone: bool,
) {
    let at = cube_index();
    if at >= count {
        terminate!();
    }
    let (row, stretch) = (at / stretches, at % stretches);
    let (batch, head) = (row / heads, row % heads);
    let kv_head = batch * kv_heads + head / (heads / kv_heads);
    let first = stretch * STRETCH;
    let mut keys = len - first;
    if keys > STRETCH {
        keys = STRETCH.runtime();
    }
    let k_from = (kv_head * slots + first) as usize * dim as usize;
    let v_from = (kv_head * slots + first) as usize * value_stride as usize;
    let q_from = (row * dim) as usize;

    let mut p = Shared::<[f32]>::new_slice(comptime!(STRETCH as usize));
    let mut part = Shared::<[f32]>::new_slice(comptime!(PART as usize));
    // One number more per row: neighbouring units read neighbouring banks.
    let mut tile = Shared::<[f32]>::new_slice(comptime!((KEYS * (PART + 1)) as usize));
    let mut dots = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let key = UNIT_POS_X % KEYS;
    let share = UNIT_POS_X / KEYS;
    let mut block = 0u32;
    while block < keys {
        let mut dot = 0.0f32;
        let mut d = 0u32;
        while d < dim {
            let mut i = UNIT_POS_X;
            while i < comptime!(KEYS * PART) {
                let (row, column) = (i / PART, i % PART);
                let mut value = 0.0f32;
                if block + row < keys && d + column < dim {
                    value = k[k_from + ((block + row) * dim + d + column) as usize];
                }
                tile[(row * comptime!(PART + 1) + column) as usize] = value;
                i += UNITS;
            }
            if UNIT_POS_X < PART {
                let mut value = 0.0f32;
                if d + UNIT_POS_X < dim {
                    value = q[q_from + (d + UNIT_POS_X) as usize];
                }
                part[UNIT_POS_X as usize] = value;
            }
            sync_cube();
            let mut j = share;
            while j < PART {
                dot += tile[(key * comptime!(PART + 1) + j) as usize] * part[j as usize];
                j += SHARES;
            }
            sync_cube();
            d += PART;
        }
        dots[UNIT_POS_X as usize] = dot;
        sync_cube();
        if UNIT_POS_X < KEYS && block + UNIT_POS_X < keys {
            let mut score = 0.0f32;
            #[unroll]
            for share in 0..SHARES {
                score += dots[(share * KEYS + UNIT_POS_X) as usize];
            }
            score *= scale;
            if comptime!(capped) {
                score = (score / cap).tanh() * cap;
            }
            p[(block + UNIT_POS_X) as usize] = score;
        }
        sync_cube();
        block += KEYS;
    }

    let mut highest = p[0];
    let mut i = UNIT_POS_X;
    while i < keys {
        if p[i as usize] > highest {
            highest = p[i as usize];
        }
        i += UNITS;
    }
    if comptime!(sunk && alone) {
        if sinks[head as usize] > highest {
            highest = sinks[head as usize];
        }
    }
    let max = max_of_units(highest);
    let mut partial = 0.0f32;
    let mut i = UNIT_POS_X;
    while i < keys {
        let weight = (p[i as usize] - max).exp();
        p[i as usize] = weight;
        partial += weight;
        i += UNITS;
    }
    let mut sum = sum_of_units(partial);
    if comptime!(sunk && alone) {
        sum += (sinks[head as usize] - max).exp();
    }
    let mut norm = 1.0f32;
    if comptime!(alone) {
        norm = 1.0f32 / sum;
    } else if UNIT_POS_X == 0 {
        stats[(at * 2) as usize] = max;
        stats[(at * 2 + 1) as usize] = sum;
    }
    let mut d = UNIT_POS_X;
    while d < value_dim {
        let mut value = 0.0f32;
        for i in 0..keys {
            value += p[i as usize] * v[v_from + (i * value_stride + d) as usize];
        }
        sums[(at * value_dim + d) as usize] = value * norm;
        d += UNITS;
    }
}

/// One cube: joins the stretches of one query head of one sequence.
#[cube(launch)]
fn join_kernel(
    sums: &Tensor<f32>,
    stats: &Tensor<f32>,
    sinks: &Tensor<f32>,
    out: &mut Tensor<f32>,
    count: u32,
    stretches: u32,
    heads: u32,
    value_dim: u32,
    #[comptime] sunk: bool,
) {
    let row = cube_index();
    if row >= count {
        terminate!();
    }
    let head = row % heads;
    let first = row * stretches;
    let mut highest = stats[(first * 2) as usize];
    let mut i = UNIT_POS_X;
    while i < stretches {
        let max = stats[((first + i) * 2) as usize];
        if max > highest {
            highest = max;
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
    let mut i = UNIT_POS_X;
    while i < stretches {
        let at = (first + i) * 2;
        partial += stats[(at + 1) as usize] * (stats[at as usize] - max).exp();
        i += UNITS;
    }
    let mut sum = sum_of_units(partial);
    if comptime!(sunk) {
        sum += (sinks[head as usize] - max).exp();
    }
    let mut d = UNIT_POS_X;
    while d < value_dim {
        let mut value = 0.0f32;
        for i in 0..stretches {
            let at = first + i;
            let weight = (stats[(at * 2) as usize] - max).exp();
            value += weight * sums[(at * value_dim + d) as usize];
        }
        out[(row * value_dim + d) as usize] = value / sum;
        d += UNITS;
    }
}

pub(super) fn launch(
    q: CubeTensor,
    k: CubeTensor,
    v: CubeTensor,
    sinks: CubeTensor,
    call: DecodeCall,
) -> CubeTensor {
    let (q, k, v, sinks) =
        (into_contiguous(q), into_contiguous(k), into_contiguous(v), into_contiguous(sinks));
    let (batch, heads, dim) = (q.shape()[0], q.shape()[1], q.shape()[3]);
    let (kv_heads, slots, value_stride) = (k.shape()[1], k.shape()[2], v.shape()[3]);
    let rows = batch * heads;
    let stretches = call.len.div_ceil(STRETCH as usize);
    let alone = stretches == 1;
    let client = q.client.clone();
    let out = empty(&q, [batch, heads * call.value_dim], DType::F32);
    let (sums, stats) = match alone {
        true => (out.clone(), empty(&q, [1, 2], DType::F32)),
        false => (
            empty(&q, [rows * stretches, call.value_dim], DType::F32),
            empty(&q, [rows * stretches, 2], DType::F32),
        ),
    };
    let addresses = AddressType::from_len(k.shape().num_elements().max(v.shape().num_elements()));
    stretch_kernel::launch(
        &client,
        cubes(rows * stretches),
        CubeDim::new_1d(UNITS),
        addresses,
        q.into_tensor_arg(),
        k.into_tensor_arg(),
        v.into_tensor_arg(),
        sinks.clone().into_tensor_arg(),
        sums.clone().into_tensor_arg(),
        stats.clone().into_tensor_arg(),
        (rows * stretches) as u32,
        stretches as u32,
        heads as u32,
        kv_heads as u32,
        slots as u32,
        call.len as u32,
        dim as u32,
        value_stride as u32,
        call.value_dim as u32,
        call.scale,
        call.soft_cap.unwrap_or(1.0),
        call.soft_cap.is_some(),
        call.sinks,
        alone,
    );
    if !alone {
        join_kernel::launch(
            &client,
            cubes(rows),
            CubeDim::new_1d(UNITS),
            sums.into_tensor_arg(),
            stats.into_tensor_arg(),
            sinks.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            rows as u32,
            stretches as u32,
            heads as u32,
            call.value_dim as u32,
            call.sinks,
        );
    }
    out
}
