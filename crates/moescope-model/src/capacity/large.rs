//! The largest tensors that can't be cut.

use serde::Serialize;

use super::Room;
use crate::{
    dtype::DType,
    footprint::attention_scores,
    spec::{ModelSpec, Part, Role, TensorSpec},
};

/// A tensor and its size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Large {
    /// What it holds; plural.
    pub what: String,
    /// Bytes.
    pub bytes: u64,
}

/// The largest of what is never cut: matrices of one expert, keys of a layer, and on a GPU attention scores,
/// what the blocks between make, and logits. (Weights are cut by rows, experts, heads.)
pub(super) fn largest(spec: &ModelSpec, room: &Room) -> Large {
    let demand = room.demand;
    let f32s = |elements: u64| elements.saturating_mul(DType::F32.bytes());
    let large = |what: String, bytes: u64| Large { what, bytes };
    let mut all = Vec::new();
    let is_experts = |t: &TensorSpec| t.part == Part::Experts && t.role == Role::Matrix;
    let experts = spec.tensors.iter().filter(|t| is_experts(t));
    if let Some((tensor, bytes)) = experts
        .map(|tensor| match tensor.shape.as_slice() {
            [experts, ..] if tensor.shape.len() == 3 => {
                (tensor, tensor.bytes(room.dtype) / *experts as u64)
            }
            // Gate and up projection of an expert lie in one.
            _ => (tensor, tensor.bytes(room.dtype).saturating_mul(2)),
        })
        .max_by_key(|(_, bytes)| *bytes)
    {
        all.push(large(format!("projections of one expert ({})", tensor.name), bytes));
    }
    let slots = |layer: usize| {
        let kv = &spec.kv[layer];
        let sizes =
            [kv.heads, kv.head_dim.max(kv.value_dim), kv.slots(demand.context), demand.batch];
        sizes.into_iter().fold(1, |product: u64, n| product.saturating_mul(n as u64))
    };
    if let Some(layer) = (0..spec.kv.len()).max_by_key(|layer| slots(*layer)) {
        let what =
            format!("keys of layer {layer} for {} x {} tokens", demand.batch, demand.context);
        all.push(large(what, f32s(slots(layer))));
    }
    if room.on_gpu {
        let pass = demand.longest_pass();
        let tokens = pass.tokens() as u64;
        let scores = spec.kv.iter().map(|kv| attention_scores(kv, pass)).max().unwrap_or(0);
        let what = format!(
            "attention scores of {} tokens x {} that follow {}",
            pass.new, pass.batch, pass.context
        );
        all.push(large(what, f32s(scores)));
        let mut parameters = vec![0u64; spec.layers];
        for tensor in spec.tensors.iter().filter(|t| is_experts(t)) {
            let layer = tensor.layer.and_then(|layer| parameters.get_mut(usize::from(layer)));
            layer.into_iter().for_each(|sum| *sum = sum.saturating_add(tensor.parameters()));
        }
        let widest = spec.moe.iter().map(|moe| {
            // Gate and up projections, 2/3 of the parameters, make 2 I columns, the down projection H.
            let each = parameters[usize::from(moe.layer)] / u64::from(moe.experts);
            let columns = each.saturating_mul(2) / 3 / spec.hidden as u64;
            u64::from(moe.top_k).saturating_mul(columns.max(spec.hidden as u64))
        });
        let widest = widest.max();
        let dense = spec.tensors.iter().filter(|t| {
            t.role == Role::Matrix && matches!(t.part, Part::Mlp | Part::SharedExperts)
        });
        // Whichever way round it lies.
        let dense = dense.filter_map(|t| t.shape.iter().max()).max().map(|n| *n as u64);
        let what = format!("projections by dense blocks of {tokens} tokens");
        all.push(large(what, f32s(tokens.saturating_mul(dense.unwrap_or(0)))));
        let what = format!("projections by the experts of {tokens} tokens");
        all.push(large(what, f32s(tokens.saturating_mul(widest.unwrap_or(0)))));
        let rows = demand.batch.max(demand.scored());
        let what = format!("logits of {rows} tokens");
        all.push(large(what, f32s((rows as u64).saturating_mul(spec.vocab as u64))));
    }
    // A model without layers has none.
    let none = || large("tensors".into(), 0);
    all.into_iter().max_by_key(|tensor| tensor.bytes).unwrap_or_else(none)
}
