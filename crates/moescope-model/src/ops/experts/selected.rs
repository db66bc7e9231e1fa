//! Only the experts a token was routed to.
//!
//! On the CPU one kernel does it all. On a GPU a few tokens take one dot product per output, which
//! reads each selected weight once and nothing else; more tokens are grouped by expert on the device
//! and multiplied tile by tile. Nothing is read back.

use burn::tensor::Tensor;

use super::{
    Biases, Experts, Mixture,
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

pub(super) fn forward(
    experts: &Experts,
    x: Tensor<2>,
    choice: &Choice,
    output_norms: bool,
) -> Mixture {
    if cpu::is_cpu(&x.device()) {
        return on_cpu(experts, x, choice, output_norms);
    }
    let [e, ..] = experts.gate_up.dims();
    let [t, top_k] = choice.weights.dims();
    match t * top_k < SLOTS_PER_EXPERT * e {
        true => one_by_one(experts, x, choice, output_norms),
        false => in_tiles(experts, x, choice, output_norms),
    }
}

/// A few tokens, a decode step above all.
fn one_by_one(experts: &Experts, x: Tensor<2>, choice: &Choice, output_norms: bool) -> Mixture {
    let [t, top_k] = choice.weights.dims();
    let both = expert_rows(x, &experts.gate_up, &choice.experts, top_k);
    let act = experts.activation.gated(with_bias(both, experts, choice, |b| &b.gate_up));
    if output_norms {
        let each = expert_rows(act, &experts.down, &choice.experts, 1);
        return mix(with_bias(each, experts, choice, |b| &b.down), choice, true);
    }
    let sum = expert_sum(act, &experts.down, &choice.experts, &choice.weights);
    let sum = match &experts.biases {
        None => sum,
        Some(biases) => {
            let [_, hidden] = biases.down.dims();
            let own = biases.down.clone().select(0, choice.experts.clone().reshape([t * top_k]));
            sum + weighted_sum(own, choice, [t, top_k, hidden])
        }
    };
    Mixture { sum, output_norms: None }
}

/// Many tokens.
fn in_tiles(experts: &Experts, x: Tensor<2>, choice: &Choice, output_norms: bool) -> Mixture {
    let [e, ..] = experts.gate_up.dims();
    let [_, top_k] = choice.weights.dims();
    let plan = expert_plan(&choice.experts, e);
    let both = expert_tiles(x, &experts.gate_up, &choice.experts, &plan, top_k);
    let act = experts.activation.gated(with_bias(both, experts, choice, |b| &b.gate_up));
    let each = expert_tiles(act, &experts.down, &choice.experts, &plan, 1);
    mix(with_bias(each, experts, choice, |b| &b.down), choice, output_norms)
}

/// Adds each slot's own bias to its row of `x [R, N]`.
fn with_bias(
    x: Tensor<2>,
    experts: &Experts,
    choice: &Choice,
    of: fn(&Biases) -> &Tensor<2>,
) -> Tensor<2> {
    let [slots, _] = x.dims();
    match &experts.biases {
        None => x,
        Some(biases) => x + of(biases).clone().select(0, choice.experts.clone().reshape([slots])),
    }
}

/// Outputs of all slots, `[R, H]`, to sums per token.
fn mix(each: Tensor<2>, choice: &Choice, output_norms: bool) -> Mixture {
    let [t, top_k] = choice.weights.dims();
    let [_, hidden] = each.dims();
    let output_norms =
        output_norms.then(|| each.clone().square().sum_dim(1).sqrt().reshape([t, top_k]));
    Mixture { sum: weighted_sum(each, choice, [t, top_k, hidden]), output_norms }
}

/// Rows of slots times their weights, summed over the ranks of each token: `[R, H] -> [T, H]`.
fn weighted_sum(each: Tensor<2>, choice: &Choice, [t, top_k, hidden]: [usize; 3]) -> Tensor<2> {
    let weighted = each.reshape([t, top_k, hidden]) * choice.weights.clone().unsqueeze_dim(2);
    weighted.sum_dim(1).reshape([t, hidden])
}

fn on_cpu(experts: &Experts, x: Tensor<2>, choice: &Choice, output_norms: bool) -> Mixture {
    let [e, both, hidden] = experts.gate_up.dims();
    let [t, top_k] = choice.weights.dims();
    let shape = Shape { hidden, inner: both / 2, experts: e, top_k };
    let activation = experts.activation;
    let ids = cpu::host_ints(choice.experts.clone());
    let ids = cpu::i32s(&ids);
    let (x, weights) = (cpu::host(x), cpu::host(choice.weights.clone()));
    let (x, weights) = (cpu::f32s(&x), cpu::f32s(&weights));
    let biases = experts.biases.clone();
    let biases = biases.map(|b| (cpu::host(b.gate_up), cpu::host(b.down)));
    let biases = biases.as_ref().map(|(gate_up, down)| (cpu::f32s(gate_up), cpu::f32s(down)));
    let gate_up = cpu::host(experts.gate_up.clone());
    let down = cpu::host(experts.down.clone());
    let mixed = match (cpu::weights(&gate_up), cpu::weights(&down)) {
        (WeightSlice::F32(gate_up), WeightSlice::F32(down)) => {
            let call = Call { x, ids, weights, gate_up, down, biases, shape, activation };
            selected(call, output_norms)
        }
        (WeightSlice::F16(gate_up), WeightSlice::F16(down)) => {
            let call = Call { x, ids, weights, gate_up, down, biases, shape, activation };
            selected(call, output_norms)
        }
        (WeightSlice::Bf16(gate_up), WeightSlice::Bf16(down)) => {
            let call = Call { x, ids, weights, gate_up, down, biases, shape, activation };
            selected(call, output_norms)
        }
        _ => unreachable!("the weights of a layer have one type"),
    };
    Mixture {
        sum: cpu::tensor(mixed.sum, [t, hidden]),
        output_norms: mixed.norms.map(|norms| cpu::tensor(norms, [t, top_k])),
    }
}
