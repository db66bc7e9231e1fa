//! Only the experts a token was routed to.
//!
//! On the CPU one kernel does it all. On a GPU a few tokens take one dot product per output, which
//! reads each selected weight once and nothing else; more tokens are grouped by expert on the device
//! and multiplied tile by tile. Nothing is read back.

use burn::tensor::Tensor;

use super::{
    Biases, Experts, Mixture,
    extension::{Group, expert_plan, expert_rows, expert_sum, expert_tiles},
    kernels::TILE_ROWS,
};
use crate::ops::{
    activation::Activation,
    cpu::{
        self, WeightSlices,
        experts::{Call, Mixed, Shape, Stack, selected},
        lanes::Weight,
    },
    pieces::Pieces,
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

/// A product with every piece of `w`, added up: a piece gives 0 for experts that lie in another.
fn over_pieces(w: &Pieces<3>, product: impl Fn(&Tensor<3>, Group) -> Tensor<2>) -> Tensor<2> {
    let total = w.dims()[0];
    let mut pieces = w.iter().map(|(first, piece)| product(piece, Group { first, total }));
    // A weight has at least one piece.
    let Some(first) = pieces.next() else { unreachable!("a weight without pieces") };
    pieces.fold(first, |sum, piece| sum + piece)
}

/// A few tokens, a decode step above all.
fn one_by_one(experts: &Experts, x: Tensor<2>, choice: &Choice, output_norms: bool) -> Mixture {
    let [t, top_k] = choice.weights.dims();
    let rows = |x: &Tensor<2>, w: &Pieces<3>, share: usize| {
        over_pieces(w, |w, group| expert_rows(x.clone(), w, &choice.experts, group, share))
    };
    let both = rows(&x, &experts.gate_up, top_k);
    let act = experts.activation.gated(with_bias(both, experts, choice, |b| &b.gate_up));
    if output_norms {
        let each = rows(&act, &experts.down, 1);
        return mix(with_bias(each, experts, choice, |b| &b.down), choice, true);
    }
    let sum = over_pieces(&experts.down, |w, group| {
        expert_sum(act.clone(), w, &choice.experts, &choice.weights, group)
    });
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
    let tiles = |x: &Tensor<2>, w: &Pieces<3>, share: usize| {
        over_pieces(w, |w, group| expert_tiles(x.clone(), w, &choice.experts, &plan, group, share))
    };
    let both = tiles(&x, &experts.gate_up, top_k);
    let act = experts.activation.gated(with_bias(both, experts, choice, |b| &b.gate_up));
    let each = tiles(&act, &experts.down, 1);
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
    let hosts = |weight: &Pieces<3>| -> Vec<_> {
        weight.iter().map(|(_, piece)| cpu::host(piece.clone())).collect()
    };
    let (gate_up, down) = (hosts(&experts.gate_up), hosts(&experts.down));
    let each = [experts.gate_up.rows_each(), experts.down.rows_each()];
    let inputs = Inputs { x, ids, weights, biases, shape, activation, each, output_norms };
    let mixed = match (cpu::pieces(&gate_up), cpu::pieces(&down)) {
        (WeightSlices::F32(gate_up), WeightSlices::F32(down)) => inputs.with(&gate_up, &down),
        (WeightSlices::F16(gate_up), WeightSlices::F16(down)) => inputs.with(&gate_up, &down),
        (WeightSlices::Bf16(gate_up), WeightSlices::Bf16(down)) => inputs.with(&gate_up, &down),
        _ => unreachable!("the weights of a layer have one type"),
    };
    Mixture {
        sum: cpu::tensor(mixed.sum, [t, hidden]),
        output_norms: mixed.norms.map(|norms| cpu::tensor(norms, [t, top_k])),
    }
}

/// What a layer on the CPU is applied to, whatever the type of its weights.
struct Inputs<'a> {
    x: &'a [f32],
    ids: &'a [i32],
    weights: &'a [f32],
    biases: Option<(&'a [f32], &'a [f32])>,
    shape: Shape,
    activation: Activation,
    /// Experts in a slice of gate and up projections, and of down projections.
    each: [usize; 2],
    output_norms: bool,
}

impl Inputs<'_> {
    fn with<W: Weight>(&self, gate_up: &[&[W]], down: &[&[W]]) -> Mixed {
        let Shape { hidden, inner, .. } = self.shape;
        let [gate_up_each, down_each] = self.each;
        let call = Call {
            x: self.x,
            ids: self.ids,
            weights: self.weights,
            gate_up: Stack { slices: gate_up, each: gate_up_each, size: 2 * inner * hidden },
            down: Stack { slices: down, each: down_each, size: hidden * inner },
            biases: self.biases,
            shape: self.shape,
            activation: self.activation,
        };
        selected(call, self.output_norms)
    }
}
