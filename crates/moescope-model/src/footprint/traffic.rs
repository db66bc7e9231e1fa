//! Bytes a pass has to read.

use super::{PassShape, weights::by_part};
use crate::{
    dtype::DType,
    spec::{KvSpec, ModelSpec, MoeLayerSpec, Part, Role, TensorSpec},
};

/// How many distinct experts of each MoE layer a pass touches.
#[derive(Clone, Copy, Debug)]
pub enum Distinct<'a> {
    /// What routing that spreads tokens evenly and independently would: `E (1 - (1 - K/E)^T)` for T tokens,
    /// which is K for one.
    Uniform,
    /// As measured: the mean number of each MoE layer, in the order of [`ModelSpec::moe`]; all of a layer
    /// that is missing.
    Measured(&'a [f64]),
    /// All of them.
    All,
}

impl Distinct<'_> {
    /// Experts of the `index`-th MoE layer that a pass over `tokens` tokens touches.
    pub fn of(&self, index: usize, moe: &MoeLayerSpec, tokens: usize) -> f64 {
        let (experts, top_k) = (f64::from(moe.experts), f64::from(moe.top_k));
        match self {
            Distinct::Uniform => experts * (1.0 - (1.0 - top_k / experts).powf(tokens as f64)),
            Distinct::Measured(means) => means.get(index).copied().unwrap_or(experts).min(experts),
            Distinct::All => experts,
        }
    }
}

/// Bytes a pass has to read at least once, by what they are for.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    /// Weights by part, in the order of [`Part`]. A tied embedding is the head, and read whole; of one
    /// that is not, and of per-layer embeddings, the rows of the tokens are.
    pub parts: Vec<(Part, f64)>,
    /// Keys and values: of each sequence, those its new tokens attend to, windows respected.
    pub kv: f64,
}

impl Traffic {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.parts.iter().map(|(_, bytes)| bytes).sum::<f64>() + self.kv
    }
}

/// Bytes a pass has to read where weights are held in `dtype`: every weight it uses once, the experts it
/// touches once, keys and values once.
///
/// Activations are not counted: they are small beside weights, and mostly stay in caches.
pub fn traffic(spec: &ModelSpec, dtype: DType, pass: PassShape, distinct: Distinct<'_>) -> Traffic {
    let tokens = pass.tokens();
    // Of the experts of each decoder layer, the part that is read.
    let mut shares = vec![1.0; spec.layers];
    for (index, moe) in spec.moe.iter().enumerate() {
        shares[usize::from(moe.layer)] = distinct.of(index, moe, tokens) / f64::from(moe.experts);
    }
    let read = |tensor: &TensorSpec| {
        let whole = tensor.bytes(dtype) as f64;
        let head_too = tensor.part == Part::Embedding && spec.is_tied();
        match (tensor.role, tensor.part, tensor.layer) {
            (Role::Table, ..) if !head_too => {
                let rows = tensor.shape.first().map_or(1, |rows| *rows as u64).max(1);
                whole / rows as f64 * (tokens as u64).min(rows) as f64
            }
            (_, Part::Experts, Some(layer)) => whole * shares[usize::from(layer)],
            _ => whole,
        }
    };
    let parts = by_part(spec, read, |a, b| a + b);
    let kv = spec.kv.iter().map(|kv| kv_read(spec, kv, pass)).sum();
    Traffic { parts, kv }
}

/// Keys and values a layer reads: its own, or those of the layer it shares them with.
fn kv_read(spec: &ModelSpec, kv: &KvSpec, pass: PassShape) -> f64 {
    let owner = kv.source.and_then(|layer| spec.kv.get(usize::from(layer))).unwrap_or(kv);
    // The first new token sees least of what was there before, all of them see all that is new.
    let before =
        kv.window.map_or(pass.context, |window| pass.context.min(window.saturating_sub(1)));
    owner.bytes_per_slot() as f64 * ((before + pass.new) * pass.batch) as f64
}
