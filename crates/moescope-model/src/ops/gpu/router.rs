//! From router logits to experts and weights, in one dispatch: scores, groups, the K best, renormalisation.

use burn::{backend::TensorMetadata, tensor::DType};
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{
    cubes::{UNITS, cube_index, cubes, max_of_units, sum_of_units},
    empty,
};
use crate::ops::router::{Groups, RULED_OUT, TINY};

/// Most experts the kernel keeps scores of: two numbers each, of 16 KiB that every device shares
/// within a cube, beside what sums and maxima take.
const MOST_EXPERTS: usize = 1024;

/// Below any score: taken.
const TAKEN: f32 = -3e38;

/// How experts are chosen and weighted: a [`crate::ops::router::RouterRule`] and which numbers per expert there
/// are.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct RouterCall {
    /// Experts per token, K.
    pub(in crate::ops) top_k: usize,
    /// Sigmoid scores; softmax otherwise.
    pub(in crate::ops) sigmoid: bool,
    /// Groups that limit the choice.
    pub(in crate::ops) groups: Option<Groups>,
    /// Whether the chosen scores are divided by their sum.
    pub(in crate::ops) renormalise: bool,
    /// Multiplies all weights.
    pub(in crate::ops) factor: f32,
    /// Whether scores are corrected for the choice.
    pub(in crate::ops) corrected: bool,
    /// Whether each expert's weight is scaled.
    pub(in crate::ops) scaled: bool,
    /// Whether experts are given.
    pub(in crate::ops) forced: bool,
    /// Whether choice scores are returned: they are not the distribution.
    pub(in crate::ops) keeps_scores: bool,
}

impl RouterCall {
    /// Whether the kernel can hold the scores of `experts` experts.
    pub(in crate::ops) fn fits(experts: usize) -> bool {
        experts <= MOST_EXPERTS
    }

    /// The choice scores' shape; one number that nobody reads where they are not kept.
    pub(super) fn scores_shape(&self, all: [usize; 2]) -> [usize; 2] {
        if self.keeps_scores { all } else { [1, 1] }
    }
}

/// One cube: one token.
#[cube(launch)]
fn router_kernel(
    logits: &Tensor<f32>,
    correction: &Tensor<f32>,
    scale: &Tensor<f32>,
    forced: &Tensor<i32>,
    probs: &mut Tensor<f32>,
    scores: &mut Tensor<f32>,
    experts: &mut Tensor<i32>,
    weights: &mut Tensor<f32>,
    tokens: u32,
    factor: f32,
    #[comptime] total: u32,
    #[comptime] top_k: u32,
    #[comptime] groups: u32,
    #[comptime] kept_groups: u32,
    #[comptime] sigmoid: bool,
    #[comptime] renormalise: bool,
    #[comptime] corrected: bool,
    #[comptime] scaled: bool,
    #[comptime] is_forced: bool,
    #[comptime] keeps_scores: bool,
) {
    let token = cube_index();
    if token >= tokens {
        terminate!();
    }
    let from = (token * total) as usize;
    // Scores as weights are made of them, and as the choice is made by.
    let mut score = Shared::<[f32]>::new_slice(comptime!(total as usize));
    let mut choice = Shared::<[f32]>::new_slice(comptime!(total as usize));

    if comptime!(sigmoid) {
        let mut partial = 0.0f32;
        let mut e = UNIT_POS_X;
        while e < total {
            let value = 1.0f32 / (1.0f32 + (0.0f32 - logits[from + e as usize]).exp());
            score[e as usize] = value;
            partial += value;
            e += UNITS;
        }
        let sum = sum_of_units(partial) + TINY;
        let mut e = UNIT_POS_X;
        while e < total {
            probs[from + e as usize] = score[e as usize] / sum;
            e += UNITS;
        }
    } else {
        let mut highest = TAKEN.runtime();
        let mut e = UNIT_POS_X;
        while e < total {
            let value = logits[from + e as usize];
            if value > highest {
                highest = value;
            }
            e += UNITS;
        }
        let max = max_of_units(highest);
        let mut partial = 0.0f32;
        let mut e = UNIT_POS_X;
        while e < total {
            let value = (logits[from + e as usize] - max).exp();
            score[e as usize] = value;
            partial += value;
            e += UNITS;
        }
        let sum = sum_of_units(partial);
        let mut e = UNIT_POS_X;
        while e < total {
            let value = score[e as usize] / sum;
            score[e as usize] = value;
            probs[from + e as usize] = value;
            e += UNITS;
        }
    }
    let mut e = UNIT_POS_X;
    while e < total {
        let mut value = score[e as usize];
        if comptime!(corrected) {
            value += correction[e as usize];
        }
        choice[e as usize] = value;
        e += UNITS;
    }
    sync_cube();

    if comptime!(groups > 0) {
        rule_out_groups(&mut choice, total, groups, kept_groups);
    }
    if comptime!(keeps_scores) {
        let mut e = UNIT_POS_X;
        while e < total {
            scores[from + e as usize] = choice[e as usize];
            e += UNITS;
        }
    }

    let mut chosen = Shared::<[u32]>::new_slice(comptime!(top_k as usize));
    let mut best = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let mut best_at = Shared::<[u32]>::new_slice(comptime!(UNITS as usize));
    if comptime!(is_forced) {
        let mut rank = UNIT_POS_X;
        while rank < top_k {
            chosen[rank as usize] = forced[(token * top_k + rank) as usize] as u32;
            rank += UNITS;
        }
        sync_cube();
    } else {
        for rank in 0..top_k {
            let mut highest = TAKEN.runtime();
            // No expert: the answer where nothing is a number.
            let mut at = total.runtime();
            let mut e = UNIT_POS_X;
            while e < total {
                if choice[e as usize] > highest {
                    highest = choice[e as usize];
                    at = e;
                }
                e += UNITS;
            }
            best[UNIT_POS_X as usize] = highest;
            best_at[UNIT_POS_X as usize] = at;
            sync_cube();
            #[unroll]
            for step in 0..comptime!(UNITS.ilog2()) {
                let width = comptime!((UNITS / 2) >> step);
                if UNIT_POS_X < width {
                    let mine = UNIT_POS_X as usize;
                    let other = (UNIT_POS_X + width) as usize;
                    // Of equals the first, as on the CPU.
                    let wins = best[other] > best[mine]
                        || (best[other] == best[mine] && best_at[other] < best_at[mine]);
                    if wins {
                        best[mine] = best[other];
                        best_at[mine] = best_at[other];
                    }
                }
                sync_cube();
            }
            if UNIT_POS_X == 0 {
                chosen[rank as usize] = best_at[0];
                if best_at[0] < total {
                    choice[best_at[0] as usize] = TAKEN;
                }
            }
            sync_cube();
        }
    }

    if UNIT_POS_X == 0 {
        let mut sum = 0.0f32;
        for rank in 0..top_k {
            let expert = chosen[rank as usize];
            if expert < total {
                sum += score[expert as usize];
            }
        }
        for rank in 0..top_k {
            let expert = chosen[rank as usize];
            let mut weight = 0.0f32;
            if expert < total {
                weight = score[expert as usize];
                if comptime!(renormalise) {
                    weight /= sum + TINY;
                }
                weight *= factor;
                if comptime!(scaled) {
                    weight *= scale[expert as usize];
                }
            }
            let at = (token * top_k + rank) as usize;
            experts[at] = expert as i32;
            weights[at] = weight;
        }
    }
}

/// Rules out the experts of all but the best groups. A group is as good as the sum of its two best scores.
#[cube]
fn rule_out_groups(
    choice: &mut Shared<[f32]>,
    #[comptime] total: u32,
    #[comptime] groups: u32,
    #[comptime] kept: u32,
) {
    let size = comptime!(total / groups);
    let mut merit = Shared::<[f32]>::new_slice(comptime!(groups as usize));
    let mut keeps = Shared::<[u32]>::new_slice(comptime!(groups as usize));
    let mut group = UNIT_POS_X;
    while group < groups {
        let mut first = TAKEN.runtime();
        let mut second = TAKEN.runtime();
        for i in 0..size {
            let value = choice[(group * size + i) as usize];
            if value > first {
                second = first;
                first = value;
            } else if value > second {
                second = value;
            }
        }
        merit[group as usize] = first + second;
        keeps[group as usize] = 0u32;
        group += UNITS;
    }
    sync_cube();
    if UNIT_POS_X == 0 {
        for _ in 0..kept {
            let mut highest = TAKEN.runtime();
            let mut at = 0u32;
            for group in 0..groups {
                if keeps[group as usize] == 0 && merit[group as usize] > highest {
                    highest = merit[group as usize];
                    at = group;
                }
            }
            keeps[at as usize] = 1u32;
        }
    }
    sync_cube();
    let mut e = UNIT_POS_X;
    while e < total {
        if keeps[(e / size) as usize] == 0 {
            choice[e as usize] = RULED_OUT;
        }
        e += UNITS;
    }
    sync_cube();
}

pub(super) fn launch(
    logits: CubeTensor,
    correction: CubeTensor,
    scale: CubeTensor,
    forced: CubeTensor,
    call: RouterCall,
) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
    let (logits, correction) = (into_contiguous(logits), into_contiguous(correction));
    let (scale, forced) = (into_contiguous(scale), into_contiguous(forced));
    let [tokens, total] = [logits.shape()[0], logits.shape()[1]];
    let probs = empty(&logits, [tokens, total], DType::F32);
    let scores = empty(&logits, call.scores_shape([tokens, total]), DType::F32);
    let experts = empty(&logits, [tokens, call.top_k], forced.dtype);
    let weights = empty(&logits, [tokens, call.top_k], DType::F32);
    router_kernel::launch(
        &logits.client.clone(),
        cubes(tokens),
        CubeDim::new_1d(UNITS),
        logits.into_tensor_arg(),
        correction.into_tensor_arg(),
        scale.into_tensor_arg(),
        forced.into_tensor_arg(),
        probs.clone().into_tensor_arg(),
        scores.clone().into_tensor_arg(),
        experts.clone().into_tensor_arg(),
        weights.clone().into_tensor_arg(),
        tokens as u32,
        call.factor,
        total as u32,
        call.top_k as u32,
        call.groups.map_or(0, |groups| groups.count as u32),
        call.groups.map_or(0, |groups| groups.chosen as u32),
        call.sigmoid,
        call.renormalise,
        call.corrected,
        call.scaled,
        call.forced,
        call.keeps_scores,
    );
    (probs, scores, experts, weights)
}
