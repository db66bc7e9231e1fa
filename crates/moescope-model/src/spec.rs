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
}

impl TensorSpec {
    /// Number of elements.
    pub fn parameters(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
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

/// Keys and values one layer keeps.
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
        self.tensors.iter().map(TensorSpec::parameters).sum()
    }

    /// Parameters one token uses: everything but the experts it is not routed to, and but the token
    /// embedding where its publisher does not count it.
    pub fn active_parameters(&self) -> u64 {
        self.by_part().iter().map(|(_, _, active)| active).sum()
    }

    /// Parameters by part: (part, total, active), in the order of [`Part`].
    pub fn by_part(&self) -> Vec<(Part, u64, u64)> {
        let mut totals: BTreeMap<Part, u64> = BTreeMap::new();
        let mut experts: BTreeMap<Option<u16>, u64> = BTreeMap::new();
        for tensor in &self.tensors {
            *totals.entry(tensor.part).or_default() += tensor.parameters();
            if tensor.part == Part::Experts {
                *experts.entry(tensor.layer).or_default() += tensor.parameters();
            }
        }
        // Summed per layer before the division: layers may differ, and tensors need not divide.
        let active_experts = experts
            .iter()
            .map(|(layer, parameters)| match self.moe.iter().find(|m| Some(m.layer) == *layer) {
                Some(moe) => parameters * u64::from(moe.top_k) / u64::from(moe.experts),
                None => *parameters,
            })
            .sum();
        let untied = totals.contains_key(&Part::Head);
        let active = |part, total| match part {
            Part::Experts => active_experts,
            Part::Embedding if untied && !self.active_embedding => 0,
            _ => total,
        };
        totals.iter().map(|(&part, &total)| (part, total, active(part, total))).collect()
    }

    /// Bytes of all weights held in `dtype`.
    pub fn bytes(&self, dtype: DType) -> u64 {
        self.total_parameters() * dtype.bytes()
    }

    /// Bytes of keys and values for `tokens` tokens of one sequence, held in f32.
    pub fn kv_bytes(&self, tokens: usize) -> u64 {
        self.kv
            .iter()
            .map(|kv| {
                let kept = kv.window.map_or(tokens, |window| window.min(tokens));
                (kv.heads * (kv.head_dim + kv.value_dim) * kept * 4) as u64
            })
            .sum()
    }
}
