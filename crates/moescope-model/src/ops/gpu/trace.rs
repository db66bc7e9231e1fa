//! What a recorder keeps of a layer's routing, side by side in one tensor: experts, weights, entropy, margin.

use burn::{backend::TensorMetadata, tensor::DType};
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{
    cubes::{UNITS, cube_index, cubes, max_of_units, sum_of_units},
    empty,
};
use crate::ops::router::RULED_OUT;

/// One cube: one token; see [`crate::ops::router::spread`] for entropy and margin.
#[cube(launch)]
fn trace_kernel(
    probs: &Tensor<f32>,
    scores: &Tensor<f32>,
    experts: &Tensor<i32>,
    weights: &Tensor<f32>,
    out: &mut Tensor<f32>,
    tokens: u32,
    total: u32,
    top_k: u32,
) {
    let token = cube_index();
    if token >= tokens {
        terminate!();
    }
    let (from, first) = (token * total, token * top_k);
    let to = token * (2 * top_k + 2);
    let mut rank = UNIT_POS_X;
    while rank < top_k {
        out[(to + rank) as usize] = f32::cast_from(experts[(first + rank) as usize]);
        out[(to + top_k + rank) as usize] = weights[(first + rank) as usize];
        rank += UNITS;
    }
    let mut entropy = 0.0f32;
    let mut best = RULED_OUT.runtime();
    let mut e = UNIT_POS_X;
    while e < total {
        let p = probs[(from + e) as usize];
        let mut floored = p;
        if floored < 1e-30f32 {
            floored = 1e-30f32;
        }
        entropy -= p * floored.ln();
        let mut chosen = false;
        for rank in 0..top_k {
            if experts[(first + rank) as usize] as u32 == e {
                chosen = true;
            }
        }
        let score = scores[(from + e) as usize];
        if !chosen && score > best {
            best = score;
        }
        e += UNITS;
    }
    let entropy = sum_of_units(entropy);
    let best = max_of_units(best);
    if UNIT_POS_X == 0 {
        // Nothing left to beat counts as 0.
        let mut rival = best;
        if best < comptime!(RULED_OUT / 10.0) {
            rival = 0.0f32;
        }
        let last = experts[(first + top_k - 1) as usize] as u32;
        let mut kth = 0.0f32;
        if last < total {
            kth = scores[(from + last) as usize];
        }
        out[(to + 2 * top_k) as usize] = entropy;
        out[(to + 2 * top_k + 1) as usize] = kth - rival;
    }
}

pub(super) fn launch(
    probs: CubeTensor,
    scores: CubeTensor,
    experts: CubeTensor,
    weights: CubeTensor,
) -> CubeTensor {
    let (probs, scores) = (into_contiguous(probs), into_contiguous(scores));
    let (experts, weights) = (into_contiguous(experts), into_contiguous(weights));
    let [tokens, total] = [probs.shape()[0], probs.shape()[1]];
    let top_k = experts.shape()[1];
    let out = empty(&probs, [tokens, 2 * top_k + 2], DType::F32);
    trace_kernel::launch(
        &probs.client.clone(),
        cubes(tokens),
        CubeDim::new_1d(UNITS),
        probs.into_tensor_arg(),
        scores.into_tensor_arg(),
        experts.into_tensor_arg(),
        weights.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        tokens as u32,
        total as u32,
        top_k as u32,
    );
    out
}
