//! What a pass holds beside weights and cache.

use super::PassShape;
use crate::spec::{KvSpec, ModelSpec, Part, Role};

/// Bytes a pass, and scoring its tokens after it, hold at most beside weights and KV cache, f32.
///
/// An upper bound by counting: everything one layer makes is taken to be alive at once, in the layer that
/// makes most, beside the residual stream, the logits and what a recorder keeps of every router. Tokens are
/// scored when the layers are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activations {
    /// The largest layer: attention, or the feed-forward half.
    pub layer: u64,
    /// Attention scores, `[B, Nq, S, C + S]` of the layer that sees most keys. The CPU's kernel does not
    /// hold them: 0 there.
    pub scores: u64,
    /// Residual stream, per-layer inputs, positions.
    pub stream: u64,
    /// Logits of the last token of each sequence.
    pub logits: u64,
    /// Logits of the rows that are scored at once.
    pub scoring: u64,
    /// Router distributions, experts and weights of all layers, kept until the pass is recorded.
    pub routing: u64,
}

impl Activations {
    /// All of them.
    pub fn total(&self) -> u64 {
        let at_once = self.layer.saturating_add(self.scores).max(self.scoring);
        [at_once, self.stream, self.logits, self.routing].into_iter().fold(0, u64::saturating_add)
    }
}

const F32: u64 = 4;
/// Copies of a tensor alive at once: what made it, itself, and what is made of it.
const COPIES: u64 = 3;

/// What a pass holds that is followed by scoring its tokens, `scored` rows at once; `on_gpu` counts what a GPU's
/// compositions materialise and the CPU's kernels do not.
pub fn activations(spec: &ModelSpec, pass: PassShape, scored: usize, on_gpu: bool) -> Activations {
    let tokens = pass.tokens() as u64;
    let hidden = spec.hidden as u64;
    let attention = spec.kv.iter().map(|kv| attention(spec, kv, pass)).max().unwrap_or(0);
    let scores = spec.kv.iter().map(|kv| attention_scores(kv, pass)).max().unwrap_or(0);
    let feed_forward = feed_forward(spec).saturating_mul(tokens);
    let routed = spec.moe.iter().map(|moe| u64::from(2 * moe.experts) + 3 * u64::from(moe.top_k));
    // One row per token in each of the layers' own embeddings.
    let tables =
        spec.tensors.iter().filter(|t| t.role == Role::Table && t.part == Part::PerLayerEmbedding);
    let inputs: u64 = tables.map(|t| t.shape.last().map_or(0, |width| *width as u64)).sum();
    let widest = spec.kv.iter().map(|kv| kv.head_dim as u64).max().unwrap_or(0);
    Activations {
        layer: times(&[F32, attention.max(feed_forward)]),
        scores: if on_gpu { times(&[F32, COPIES, scores]) } else { 0 },
        stream: times(&[F32, COPIES, tokens, hidden + inputs]).saturating_add(times(&[
            F32,
            COPIES,
            2,
            pass.new as u64,
            widest,
        ])),
        logits: times(&[F32, COPIES, pass.batch as u64, spec.vocab as u64]),
        // The CPU caps and scores logits where they lie.
        scoring: times(&[F32, if on_gpu { COPIES } else { 1 }, scored as u64, spec.vocab as u64]),
        routing: times(&[F32, tokens, routed.sum()]),
    }
}

/// A product that stops at the largest number: what is beyond counting stays beyond what fits.
fn times(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |product, factor| product.saturating_mul(*factor))
}

/// Elements the attention of a layer makes: projections, heads, cached and new keys and values in order.
fn attention(spec: &ModelSpec, kv: &KvSpec, pass: PassShape) -> u64 {
    let owner = kv.source.and_then(|layer| spec.kv.get(usize::from(layer))).unwrap_or(kv);
    let (tokens, batch) = (pass.tokens() as u64, pass.batch as u64);
    let heads = |heads: usize, columns: usize| times(&[heads as u64, columns as u64]);
    let queries = heads(kv.query_heads, kv.head_dim + kv.attended_dim);
    let keys = heads(kv.heads, kv.head_dim + kv.value_dim);
    let kept = (kv.slots(pass.context) + pass.new) as u64;
    let cached = times(&[COPIES, owner.bytes_per_slot() / F32, kept, batch]);
    let columns = queries.saturating_add(keys).saturating_add(spec.hidden as u64);
    times(&[COPIES, tokens, columns]).saturating_add(cached)
}

/// Elements of the attention scores of a layer, `[B, Nq, S, C + S]`, where it sees them all at once.
pub(crate) fn attention_scores(kv: &KvSpec, pass: PassShape) -> u64 {
    let keys = kv.slots(pass.context) + pass.new;
    times(&[pass.tokens() as u64, kv.query_heads as u64, keys as u64])
}

/// Elements per token the feed-forward half of a layer makes, of the layer that makes most.
fn feed_forward(spec: &ModelSpec) -> u64 {
    // Parameters of the matrices of each layer: dense blocks, experts.
    let mut parameters = vec![[0u64; 2]; spec.layers];
    for tensor in spec.tensors.iter().filter(|tensor| tensor.role == Role::Matrix) {
        let kind = match tensor.part {
            Part::Mlp | Part::SharedExperts => 0,
            Part::Experts => 1,
            _ => continue,
        };
        if let Some(layer) = tensor.layer.and_then(|layer| parameters.get_mut(usize::from(layer))) {
            layer[kind] = layer[kind].saturating_add(tensor.parameters());
        }
    }
    let mut routed = vec![None; spec.layers];
    for moe in &spec.moe {
        routed[usize::from(moe.layer)] = Some((u64::from(moe.experts), u64::from(moe.top_k)));
    }
    let hidden = spec.hidden as u64;
    // Gate, up and down projection have H x I parameters each; a block makes gate, up, their product, and
    // its output.
    let block = |parameters: u64| parameters / hidden + hidden;
    let layers = std::iter::zip(parameters, routed).map(|([dense, experts], routed)| {
        let dense = if dense > 0 { block(dense) } else { 0 };
        let routed = routed.map_or(0, |(count, top_k)| {
            (COPIES * count).saturating_add(times(&[top_k, block(experts / count)]))
        });
        times(&[COPIES, hidden.saturating_add(dense)]).saturating_add(times(&[2, routed]))
    });
    layers.max().unwrap_or(0)
}
