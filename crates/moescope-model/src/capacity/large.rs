//! The largest tensors that can't be cut.

use super::Room;
use crate::{
    dtype::DType,
    footprint::PassShape,
    spec::{ModelSpec, Part, Role},
};

/// A tensor and its size.
pub(super) struct Large {
    /// What it holds; plural.
    pub(super) what: String,
    /// Bytes.
    pub(super) bytes: u64,
}

/// The largest of what is never cut: matrices of one expert, keys of a layer, and on a GPU attention scores,
/// what experts make in between, and logits. (Weights are cut by rows, experts, heads.)
pub(super) fn largest(spec: &ModelSpec, room: &Room) -> Option<Large> {
    let demand = room.demand;
    let f32s = |elements: usize| elements as u64 * DType::F32.bytes();
    let large = |what: String, bytes: u64| Large { what, bytes };
    let mut all = Vec::new();
    let experts = spec.tensors.iter().filter(|t| t.part == Part::Experts && t.role == Role::Matrix);
    if let Some((tensor, bytes)) = experts
        .map(|tensor| match tensor.shape.as_slice() {
            [experts, ..] if tensor.shape.len() == 3 => {
                (tensor, tensor.bytes(room.dtype) / *experts as u64)
            }
            // Gate and up projection of an expert lie in one.
            _ => (tensor, 2 * tensor.bytes(room.dtype)),
        })
        .max_by_key(|(_, bytes)| *bytes)
    {
        all.push(large(format!("projections of one expert ({})", tensor.name), bytes));
    }
    let slots = |layer: usize| {
        let kv = &spec.kv[layer];
        kv.heads * kv.head_dim.max(kv.value_dim) * kv.slots(demand.context) * demand.batch
    };
    if let Some(layer) = (0..spec.kv.len()).max_by_key(|layer| slots(*layer)) {
        let what =
            format!("keys of layer {layer} for {} x {} tokens", demand.batch, demand.context);
        all.push(large(what, f32s(slots(layer))));
    }
    if room.on_gpu {
        let prompt = demand.prompt.clamp(1, demand.context.max(1));
        let pass = PassShape::prefill(demand.batch, prompt);
        let heads = spec.kv.iter().map(|kv| kv.query_heads).max().unwrap_or(0);
        let what = format!("attention scores of a prompt of {prompt} tokens x {}", demand.batch);
        all.push(large(what, f32s(pass.tokens() * heads * prompt)));
        let widest = |layer: u16, top_k: u16, experts: u16| {
            let of = spec.tensors.iter().filter(|t| {
                t.layer == Some(layer) && t.part == Part::Experts && t.role == Role::Matrix
            });
            let parameters: u64 = of.map(|t| t.parameters()).sum();
            // Gate and up projections, 2/3 of the parameters, make 2 I columns.
            let columns = parameters / u64::from(experts) * 2 / 3 / spec.hidden as u64;
            usize::from(top_k) * columns as usize
        };
        let widest = spec.moe.iter().map(|moe| widest(moe.layer, moe.top_k, moe.experts)).max();
        let what = format!("projections by the experts of {} tokens", pass.tokens());
        all.push(large(what, f32s(pass.tokens() * widest.unwrap_or(0))));
        let what = format!("logits of {} sequences", demand.batch);
        all.push(large(what, f32s(demand.batch * spec.vocab)));
    }
    all.into_iter().max_by_key(|tensor| tensor.bytes)
}
