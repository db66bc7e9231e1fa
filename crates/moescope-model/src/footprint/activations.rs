//! What a pass holds beside weights and cache.

use super::PassShape;
use crate::spec::{KvSpec, ModelSpec, Part, Role};

/// Bytes a pass holds at most beside weights and KV cache, f32.
///
/// An upper bound by counting: everything one layer makes is taken to be alive at once, in the layer that
/// makes most, beside the residual stream, the logits and what a recorder keeps of every router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activations {
    /// The largest layer: attention, or the feed-forward half.
    pub layer: u64,
    /// Attention scores, `[B, Nq, S, C + S]` of the layer that sees most keys. The CPU's kernel does not
    /// hold them: 0 there.
    pub scores: u64,
    /// Residual stream, per-layer inputs, positions.
    pub stream: u64,
    /// Logits.
    pub logits: u64,
    /// Router distributions, experts and weights of all layers, kept until the pass is recorded.
    pub routing: u64,
}

impl Activations {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.layer + self.scores + self.stream + self.logits + self.routing
    }
}

const F32: u64 = 4;
/// Copies of a tensor alive at once: what made it, itself, and what is made of it.
const COPIES: u64 = 3;

/// What a pass holds; `on_gpu` counts the attention scores that a GPU's composition materialises.
pub fn activations(spec: &ModelSpec, pass: PassShape, on_gpu: bool) -> Activations {
    let tokens = pass.tokens() as u64;
    let hidden = spec.hidden as u64;
    let attention = spec.kv.iter().map(|kv| attention(spec, kv, pass)).max().unwrap_or(0);
    let scores = spec.kv.iter().map(|kv| scores(kv, pass)).max().unwrap_or(0);
    let feed_forward =
        (0..spec.layers).map(|layer| feed_forward(spec, layer as u16) * tokens).max().unwrap_or(0);
    let routed = spec.moe.iter().map(|moe| u64::from(2 * moe.experts) + 3 * u64::from(moe.top_k));
    // One row per token in each of the layers' own embeddings.
    let tables =
        spec.tensors.iter().filter(|t| t.role == Role::Table && t.part == Part::PerLayerEmbedding);
    let inputs: u64 = tables.map(|t| t.shape.last().map_or(0, |width| *width as u64)).sum();
    let widest = spec.kv.iter().map(|kv| kv.head_dim as u64).max().unwrap_or(0);
    Activations {
        layer: F32 * attention.max(feed_forward),
        scores: if on_gpu { F32 * COPIES * scores } else { 0 },
        stream: F32 * COPIES * (tokens * (hidden + inputs) + 2 * pass.new as u64 * widest),
        logits: F32 * COPIES * (pass.batch * spec.vocab) as u64,
        routing: F32 * tokens * routed.sum::<u64>(),
    }
}

/// Elements the attention of a layer makes: projections, heads, cached and new keys and values in order.
fn attention(spec: &ModelSpec, kv: &KvSpec, pass: PassShape) -> u64 {
    let owner = kv.source.and_then(|layer| spec.kv.get(usize::from(layer))).unwrap_or(kv);
    let (tokens, batch) = (pass.tokens() as u64, pass.batch as u64);
    let queries = (kv.query_heads * kv.head_dim) as u64;
    let attended = (kv.query_heads * kv.attended_dim) as u64;
    let keys = (kv.heads * (kv.head_dim + kv.value_dim)) as u64;
    let kept = (kv.slots(pass.context) + pass.new) as u64 * batch;
    let cached = owner.bytes_per_slot() / F32 * kept;
    COPIES * tokens * (queries + keys + attended + spec.hidden as u64) + COPIES * cached
}

/// Attention scores of a layer.
fn scores(kv: &KvSpec, pass: PassShape) -> u64 {
    let keys = kv.slots(pass.context) + pass.new;
    (pass.tokens() * kv.query_heads * keys) as u64
}

/// Elements per token the feed-forward half of a layer makes.
fn feed_forward(spec: &ModelSpec, layer: u16) -> u64 {
    let (hidden, moe) = (spec.hidden as u64, spec.moe_of(Some(layer)));
    let of = |part: Part| {
        let tensors = spec.tensors.iter().filter(move |t| t.layer == Some(layer) && t.part == part);
        tensors.filter(|t| t.role == Role::Matrix).map(|t| t.parameters()).sum::<u64>()
    };
    // Gate, up and down projection have H x I parameters each; a block makes gate, up, their product, and
    // its output.
    let block = |parameters: u64| parameters / hidden + hidden;
    let dense = of(Part::Mlp) + of(Part::SharedExperts);
    let dense = if dense > 0 { block(dense) } else { 0 };
    let routed = moe.map_or(0, |moe| {
        let (experts, top_k) = (u64::from(moe.experts), u64::from(moe.top_k));
        COPIES * experts + top_k * block(of(Part::Experts) / experts)
    });
    COPIES * (hidden + dense) + 2 * routed
}
