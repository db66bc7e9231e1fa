//! Only the experts a token was routed to.
//!
//! On the CPU one kernel does it all. On a GPU a few tokens take one dot product per output, which
//! reads each selected weight once and nothing else; more tokens are grouped by expert on the device
//! and multiplied tile by tile. Nothing is read back.

use burn::tensor::Tensor;

use super::{
    Experts,
    extension::{expert_plan, expert_rows, expert_sum, expert_tiles},
    kernels::TILE_ROWS,
};
use crate::ops::{
    cpu::{
        self, WeightSlice,
        experts::{Call, Shape, selected},
    },
    router::Choice,
};

/// Slots per expert, on average, from which tiles pay.
const SLOTS_PER_EXPERT: usize = TILE_ROWS / 16;

pub(super) fn forward(experts: &Experts, x: Tensor<2>, choice: &Choice) -> Tensor<2> {
    if cpu::is_cpu(&x.device()) {
        return on_cpu(experts, x, choice);
    }
    let [e, ..] = experts.gate_up.dims();
    let [t, top_k] = choice.weights.dims();
    match t * top_k < SLOTS_PER_EXPERT * e {
        true => one_by_one(experts, x, choice, top_k),
        false => in_tiles(experts, x, choice),
    }
}

/// A few tokens, a decode step above all.
fn one_by_one(experts: &Experts, x: Tensor<2>, choice: &Choice, top_k: usize) -> Tensor<2> {
    let both = expert_rows(x, &experts.gate_up, &choice.experts, top_k);
    let act = experts.activation.gated(both);
    expert_sum(act, &experts.down, &choice.experts, &choice.weights)
}

/// Many tokens.
fn in_tiles(experts: &Experts, x: Tensor<2>, choice: &Choice) -> Tensor<2> {
    let [e, _, hidden] = experts.gate_up.dims();
    let [t, top_k] = choice.weights.dims();
    let plan = expert_plan(&choice.experts, e);
    let both = expert_tiles(x, &experts.gate_up, &choice.experts, &plan, top_k);
    let act = experts.activation.gated(both);
    let each = expert_tiles(act, &experts.down, &choice.experts, &plan, 1);
    let weighted = each.reshape([t, top_k, hidden]) * choice.weights.clone().unsqueeze_dim(2);
    weighted.sum_dim(1).reshape([t, hidden])
}

fn on_cpu(experts: &Experts, x: Tensor<2>, choice: &Choice) -> Tensor<2> {
    let [e, both, hidden] = experts.gate_up.dims();
    let [t, top_k] = choice.weights.dims();
    let shape = Shape { hidden, inner: both / 2, experts: e, top_k };
    let activation = experts.activation;
    let ids = cpu::host_ints(choice.experts.clone());
    let ids = cpu::i32s(&ids);
    let (x, weights) = (cpu::host(x), cpu::host(choice.weights.clone()));
    let (x, weights) = (cpu::f32s(&x), cpu::f32s(&weights));
    let gate_up = cpu::host(experts.gate_up.clone());
    let down = cpu::host(experts.down.clone());
    let out = match (cpu::weights(&gate_up), cpu::weights(&down)) {
        (WeightSlice::F32(gate_up), WeightSlice::F32(down)) => {
            selected(Call { x, ids, weights, gate_up, down, shape, activation })
        }
        (WeightSlice::F16(gate_up), WeightSlice::F16(down)) => {
            selected(Call { x, ids, weights, gate_up, down, shape, activation })
        }
        (WeightSlice::Bf16(gate_up), WeightSlice::Bf16(down)) => {
            selected(Call { x, ids, weights, gate_up, down, shape, activation })
        }
        _ => unreachable!("the weights of a layer have one type"),
    };
    cpu::tensor(out, [t, hidden])
}
