//! What a model consists of, known from its config alone: tensors, MoE layers, parameter counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dtype::DType;

/// The part of a model a tensor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Token embedding (and the head, where they are tied).
    Embedding,
    /// Per-layer embeddings.
    PerLayerEmbedding,
    /// Attention projections.
    Attention,
    /// Dense feed-forward block.
    Mlp,
    /// Router.
    Router,
    /// Routed experts.
    Experts,
    /// Experts every token uses.
    SharedExperts,
    /// Norms and scalars.
    Norms,
    /// Output head, where it has weights of its own.
    Head,
}

impl Part {
    /// Name in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Part::Embedding => "embedding",
            Part::PerLayerEmbedding => "per-layer embedding",
            Part::Attention => "attention",
            Part::Mlp => "dense MLP",
            Part::Router => "router",
            Part::Experts => "experts",
            Part::SharedExperts => "shared experts",
            Part::Norms => "norms",
            Part::Head => "head",
        }
    }
}

/// One tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Name below the decoder's prefix (`model.` in most checkpoints); a head's is beside the decoder.
    pub name: String,
    /// The decoder layer it belongs to, counted from 0.
    pub layer: Option<u16>,
    /// Shape on disk, row-major.
    pub shape: Vec<usize>,
    /// Part it belongs to.
    pub part: Part,
    /// What a forward pass does with it.
    pub role: Role,
}

/// What a forward pass does with a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Multiplies every token (of experts: every token that chose it).
    Matrix,
    /// One row per token is read; all of it where it is the output head too.
    Table,
    /// Norms, scales, biases, sinks: small, and held in f32.
    Vector,
}

impl TensorSpec {
    /// Number of elements.
    pub fn parameters(&self) -> u64 {
        // A config may ask for anything: what is beyond counting stays beyond what fits.
        self.shape.iter().fold(1, |product, &n| product.saturating_mul(n as u64))
    }

    /// Whether it is held in f32 whatever the compute type: vectors, and routers, whose choice must not
    /// depend on it.
    pub fn is_exact(&self) -> bool {
        self.role == Role::Vector || self.part == Part::Router
    }

    /// Bytes it takes where weights are held in `dtype`.
    pub fn bytes(&self, dtype: DType) -> u64 {
        let each = if self.is_exact() { DType::F32.bytes() } else { dtype.bytes() };
        self.parameters().saturating_mul(each)
    }
}

/// One MoE layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoeLayerSpec {
    /// Index among all decoder layers.
    pub layer: u16,
    /// Routed experts, E.
    pub experts: u16,
    /// Experts per token, K.
    pub top_k: u16,
    /// Experts every token uses.
    pub shared_experts: u16,
}

/// Keys and values of one layer: those it keeps, and those it attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvSpec {
    /// Key/value heads; 0 where the layer reuses those of another.
    pub heads: usize,
    /// Size of a key, D.
    pub head_dim: usize,
    /// Size of a value; 0 where values are the first columns of the keys (latent attention).
    pub value_dim: usize,
    /// Tokens kept at most; `None` is all of them.
    pub window: Option<usize>,
    /// Query heads that attend.
    pub query_heads: usize,
    /// Columns of what a query gets: those of a value, or the rank of the latents.
    pub attended_dim: usize,
    /// The earlier layer whose keys and values it attends to, where it keeps none.
    pub source: Option<u16>,
    /// Sizes of latent attention, where keys and values are made of latents.
    pub latent: Option<LatentSpec>,
}

/// Sizes of latent attention, which decide how a pass is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatentSpec {
    /// Rank of the latents of keys and values, R.
    pub rank: usize,
    /// Size of the part of a key that does not turn, D.
    pub nope_dim: usize,
    /// Size of the part that does, P; all heads share it.
    pub rope_dim: usize,
    /// Size of a value, Dv.
    pub value_dim: usize,
}

/// New tokens below which latents are never expanded: laying the projections out for it takes longer.
const FEW: u64 = 32;

impl LatentSpec {
    /// Whether a pass over `new` tokens that sees `keys` of them and those before takes fewer multiplications
    /// with keys and values expanded than with queries taken to the latents' space, and no more memory.
    pub fn expands(&self, new: usize, keys: usize) -> bool {
        let size = |n: usize| n as u64;
        let (new, keys, rank, nope) = (size(new), size(keys), size(self.rank), size(self.nope_dim));
        let (rope, value) = (size(self.rope_dim), size(self.value_dim));
        // Products of queries and keys, of a head.
        let pairs = new * (2 * keys - new + 1) / 2;
        let projecting = |tokens: u64| tokens * rank * (nope + value);
        let fewer = projecting(keys) + pairs * (nope + rope + value)
            < projecting(new) + pairs * (2 * rank + rope);
        // Columns of a head: queries in two parts and whole, keys and values as products and as heads; against
        // queries and what they attend to, twice.
        let made = 3 * new * (nope + rope) + keys * (3 * nope + rope + 2 * value);
        new >= FEW && fewer && made <= 2 * new * (2 * rank + rope)
    }
}

impl KvSpec {
    /// Tokens per sequence a cache of `capacity` tokens has room for in this layer.
    pub fn slots(&self, capacity: usize) -> usize {
        self.window.map_or(capacity, |window| window.min(capacity)).max(1)
    }

    /// Bytes a token takes in one of those slots: keys and values are held in f32.
    pub fn bytes_per_slot(&self) -> u64 {
        let elements = (self.heads as u64).saturating_mul((self.head_dim + self.value_dim) as u64);
        elements.saturating_mul(DType::F32.bytes())
    }
}

/// A model as its config describes it.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    /// Architecture as in `config.json`.
    pub architecture: String,
    /// Family name.
    pub family: &'static str,
    /// Decoder layers.
    pub layers: usize,
    /// Width of the residual stream, H.
    pub hidden: usize,
    /// Vocabulary, V.
    pub vocab: usize,
    /// Longest context the model was made for.
    pub context: usize,
    /// MoE layers, in order; empty for a dense model.
    pub moe: Vec<MoeLayerSpec>,
    /// Key/value cache per layer.
    pub kv: Vec<KvSpec>,
    /// All tensors.
    pub tensors: Vec<TensorSpec>,
    /// Whether a token embedding that is not the head too counts as active, although a token reads
    /// one row of it. Publishers differ: Qwen3, OLMoE and Mixtral count it, gpt-oss does not.
    pub active_embedding: bool,
}

impl ModelSpec {
    /// Parameters in all.
    pub fn total_parameters(&self) -> u64 {
        self.tensors.iter().map(TensorSpec::parameters).fold(0, u64::saturating_add)
    }

    /// Parameters one token uses: everything but the experts it is not routed to, and but the token
    /// embedding where its publisher does not count it.
    pub fn active_parameters(&self) -> u64 {
        self.by_part().iter().map(|(_, _, active)| *active).fold(0, u64::saturating_add)
    }

    /// Parameters by part: (part, total, active), in the order of [`Part`].
    pub fn by_part(&self) -> Vec<(Part, u64, u64)> {
        let mut totals: BTreeMap<Part, u64> = BTreeMap::new();
        let mut experts: BTreeMap<Option<u16>, u64> = BTreeMap::new();
        for tensor in &self.tensors {
            let add = |sum: &mut u64| *sum = sum.saturating_add(tensor.parameters());
            add(totals.entry(tensor.part).or_default());
            if tensor.part == Part::Experts {
                add(experts.entry(tensor.layer).or_default());
            }
        }
        // Summed per layer before the division: layers may differ, and tensors need not divide.
        let active_experts = experts
            .iter()
            .map(|(layer, parameters)| match self.moe_of(*layer) {
                Some(moe) => {
                    let active = u128::from(*parameters) * u128::from(moe.top_k);
                    (active / u128::from(moe.experts)) as u64
                }
                None => *parameters,
            })
            .fold(0, u64::saturating_add);
        let untied = totals.contains_key(&Part::Head);
        let active = |part, total| match part {
            Part::Experts => active_experts,
            Part::Embedding if untied && !self.active_embedding => 0,
            _ => total,
        };
        totals.iter().map(|(&part, &total)| (part, total, active(part, total))).collect()
    }

    /// Bytes of all weights where they are held in `dtype`.
    pub fn bytes(&self, dtype: DType) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes(dtype)).fold(0, u64::saturating_add)
    }

    /// The first `layers` layers at true width, as [`crate::Checkpoint::keep_layers`] keeps them.
    pub fn first_layers(&self, layers: usize) -> Self {
        let inside = |layer: Option<u16>| layer.is_none_or(|layer| usize::from(layer) < layers);
        let mut spec = self.clone();
        spec.layers = layers;
        spec.kv.truncate(layers);
        spec.moe.retain(|moe| inside(Some(moe.layer)));
        spec.tensors.retain(|tensor| inside(tensor.layer));
        // One table and one projection for all layers, which lie side by side in them.
        for tensor in &mut spec.tensors {
            if tensor.part == Part::PerLayerEmbedding && tensor.layer.is_none() {
                let side = if tensor.role == Role::Table { 1 } else { 0 };
                tensor.shape[side] = tensor.shape[side] / self.layers * layers;
            }
        }
        spec
    }

    /// Whether the output head is the token embedding.
    pub fn is_tied(&self) -> bool {
        !self.tensors.iter().any(|tensor| tensor.part == Part::Head)
    }

    /// The experts of a layer, if it has any.
    pub fn moe_of(&self, layer: Option<u16>) -> Option<&MoeLayerSpec> {
        self.moe.iter().find(|moe| Some(moe.layer) == layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_passes_of_deepseek_v3_expand() {
        let shape = LatentSpec { rank: 512, nope_dim: 128, rope_dim: 64, value_dim: 128 };
        for (new, keys, expands) in [
            (1, 1, false),
            (31, 31, false),
            (32, 32, true),
            (4096, 4096, true),
            (512, 1024, true),
            // What is cached would be expanded for few.
            (1, 4096, false),
            (64, 4096, false),
            // It would take more memory than all there is.
            (512, 100_000, false),
        ] {
            assert_eq!(shape.expands(new, keys), expands, "{new} of {keys}");
        }
        // As in the smallest fixtures: latents that are hardly smaller.
        let shape = LatentSpec { rank: 16, nope_dim: 16, rope_dim: 8, value_dim: 16 };
        assert!(!shape.expands(200, 200));
    }
}
