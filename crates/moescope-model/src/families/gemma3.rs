//! Gemma 3, text decoder: dense, sliding and full attention in turn, norms before and after each half of a
//! layer (Gemma team, arXiv 2503.19786).
//!
//! Checked against `models/gemma3/modeling_gemma3.py` of transformers 5.23.0.

use burn::tensor::Tensor;
use serde_json::json;

use super::Family;
use crate::{
    blocks::{
        attention::{Attention, AttentionShape, NormOver, QkNorm},
        config::{LayerType, SizeDefaults, Sizes, layer_types, whole_head},
        decoder::{DecoderShape, EndsShape, Layer, LayerShape, Pass},
        layer::{Mix, MixShape},
        mlp::{Mlp, MlpShape},
        tensors::{Tensors, Weights},
    },
    checkpoint::Checkpoint,
    config::Section,
    error::Result,
    observer::Component,
    ops::{
        activation::Activation,
        experts::MoeImpl,
        norm::RmsNorm,
        rope::{Pairing, Rope, RopeConfig, RopeDefaults},
    },
    spec::{KvSpec, MoeLayerSpec, Part},
};

/// The registry entry.
pub const FAMILY: Family = Family {
    name: "Gemma 3",
    architectures: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
    describe: |checkpoint| read(checkpoint)?.spec(checkpoint),
    load: |checkpoint, options| {
        let tower = |name: &str| TOWERS.iter().any(|tower| name.starts_with(tower));
        read(checkpoint)?.load(checkpoint, options, PREFIXES, tower)
    },
};

/// Text weights lie below the first of these that a checkpoint uses: as published, as transformers 5
/// writes them, and in checkpoints without other towers.
const PREFIXES: &[&str] = &["language_model.model.", "model.language_model.", "model."];

/// Parts of multimodal checkpoints that text does not go through.
const TOWERS: &[&str] = &[
    "vision_tower.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.multi_modal_projector.",
];

/// The weight of every norm is what the checkpoint holds and this.
const NORM_OFFSET: f32 = 1.0;

/// Published configs leave out what is as the reference has it.
const DEFAULTS: SizeDefaults = SizeDefaults {
    heads: Some(8),
    kv_heads: Some(4),
    head_dim: Some(256),
    vocab: Some(262_208),
    context: Some(131_072),
    eps: Some(1e-6),
    tied: true,
    activation: ("hidden_activation", Activation::GeluTanh),
};

/// Every this many layers one attends to all tokens, where the config does not say.
const PATTERN: usize = 6;

fn read(checkpoint: &Checkpoint) -> Result<DecoderShape<SandwichShape>> {
    let mut top = Section::new(checkpoint.config_path(), FAMILY.name, checkpoint.config().clone());
    let Some(text) = top.section("text_config")? else { return read_text(top, None) };
    // The vision tower is skipped by name; its ids and sections say nothing about text.
    top.ignore(&[
        "vision_config",
        "image_token_index",
        "image_token_id",
        "boi_token_index",
        "boi_token_id",
        "eoi_token_index",
        "eoi_token_id",
        "mm_tokens_per_image",
    ]);
    let tied = top.optional("tie_word_embeddings")?;
    top.finish()?;
    read_text(text, tied)
}

/// `tied` is what a config around the text's says.
fn read_text(mut s: Section, tied: Option<bool>) -> Result<DecoderShape<SandwichShape>> {
    s.only("use_bidirectional_attention", &[json!(false)])?;
    // The reference takes this and does not apply it.
    s.only("attn_logit_softcapping", &[])?;
    // How a cache was once laid out, and what `layer_types` was made from.
    s.ignore(&["cache_implementation", "_sliding_window_pattern"]);
    let own = Sizes::read_with(&mut s, &DEFAULTS)?;
    let sizes = Sizes { tied: tied.unwrap_or(own.tied), ..own };
    let eps = sizes.eps;
    let bias = s.optional("attention_bias")?.unwrap_or(false);
    let scale = s.optional_positive("query_pre_attn_scalar")?.unwrap_or(256.0).powf(-0.5);
    let window = s.size_or("sliding_window", 4096)?;
    let mlp = MlpShape {
        hidden: sizes.hidden,
        inner: s.size_or("intermediate_size", 9216)?,
        activation: sizes.activation,
    };
    let layer = |kind| SandwichShape {
        hidden: sizes.hidden,
        eps,
        attention: AttentionShape {
            qkv_bias: bias,
            out_bias: bias,
            qk_norm: Some(QkNorm { over: NormOver::Head, eps, offset: NORM_OFFSET }),
            window: (kind == LayerType::Sliding).then_some(window),
            rope: kind as usize,
            scale,
            ..AttentionShape::plain(&sizes)
        },
        mlp,
    };
    let layers = kinds(&mut s, sizes.layers)?.into_iter().map(layer).collect();
    let shape = DecoderShape {
        family: FAMILY.name,
        ends: EndsShape {
            norm_offset: NORM_OFFSET,
            embedding_scale: (sizes.hidden as f32).sqrt(),
            soft_cap: s.optional_positive("final_logit_softcapping")?,
            ..EndsShape::plain(&sizes)
        },
        ropes: ropes(&mut s, &sizes)?,
        layers,
        active_embedding: true,
    };
    s.finish()?;
    Ok(shape)
}

fn kinds(s: &mut Section, layers: usize) -> Result<Vec<LayerType>> {
    let pattern = s.size_or("sliding_window_pattern", PATTERN)?;
    let usual = |i: usize| match (i + 1).is_multiple_of(pattern) {
        true => LayerType::Full,
        false => LayerType::Sliding,
    };
    Ok(layer_types(s, layers)?.unwrap_or_else(|| (0..layers).map(usual).collect()))
}

/// By [`LayerType`]: sliding layers have a base of their own and are never scaled in published configs.
fn ropes(s: &mut Section, sizes: &Sizes) -> Result<Vec<Rope>> {
    let defaults = |theta| RopeDefaults::whole(theta, sizes.head_dim, sizes.context);
    let local = s.optional("rope_local_base_freq")?.unwrap_or(10_000.0);
    let (sliding, full) = (defaults(local), defaults(1_000_000.0));
    let types = [("sliding_attention", sliding), ("full_attention", full)];
    let configs = match RopeConfig::read_by_type(s, &types)? {
        Some(configs) => configs,
        None => vec![RopeConfig::plain(sliding), RopeConfig::read(s, full)?],
    };
    let rope = |config| Ok(Rope::new(whole_head(s, config)?, Pairing::Halves));
    configs.into_iter().map(rope).collect()
}

/// A layer with norms before and after attention and MLP.
struct SandwichShape {
    hidden: usize,
    eps: f32,
    attention: AttentionShape,
    mlp: MlpShape,
}

const NORMS: [&str; 4] = [
    "input_layernorm.weight",
    "post_attention_layernorm.weight",
    "pre_feedforward_layernorm.weight",
    "post_feedforward_layernorm.weight",
];

impl LayerShape for SandwichShape {
    type Loaded = Sandwich;

    fn kv(&self) -> KvSpec {
        self.attention.kv()
    }

    fn moe(&self, _index: usize) -> Option<MoeLayerSpec> {
        None
    }

    fn declare(&self, tensors: &mut Tensors) {
        for name in NORMS {
            tensors.add(name, &[self.hidden], Part::Norms);
        }
        tensors.within("self_attn", |tensors| self.attention.declare(tensors));
        tensors.within("mlp", |tensors| self.mlp.declare(tensors, Part::Mlp));
    }

    fn load(&self, w: &Weights<'_>, index: usize, _moe_impl: MoeImpl) -> Result<Sandwich> {
        let norm = |i: usize| w.norm(NORMS[i], self.hidden, self.eps, NORM_OFFSET);
        Ok(Sandwich {
            index: index as u16,
            input_norm: norm(0)?,
            attention: self.attention.load(&w.within("self_attn"), index)?,
            post_attention_norm: norm(1)?,
            pre_mlp_norm: norm(2)?,
            mlp: self.mlp.load(&w.within("mlp"))?,
            post_mlp_norm: norm(3)?,
        })
    }
}

struct Sandwich {
    index: u16,
    input_norm: RmsNorm,
    attention: Attention,
    post_attention_norm: RmsNorm,
    pre_mlp_norm: RmsNorm,
    mlp: Mlp,
    post_mlp_norm: RmsNorm,
}

impl Layer for Sandwich {
    fn forward(&self, x: Tensor<2>, pass: &mut Pass<'_>) -> Tensor<2> {
        let layer = Some(self.index);
        let attended = self.attention.forward(self.input_norm.forward(x.clone()), pass);
        let x = self.post_attention_norm.add_to(x, attended, 1.0);
        pass.observer.component_done(layer, Component::Attention);
        let out = self.mlp.forward(self.pre_mlp_norm.forward(x.clone()));
        pass.observer.component_done(layer, Component::Mlp);
        let x = self.post_mlp_norm.add_to(x, out, 1.0);
        pass.observer.component_done(layer, Component::Rest);
        x
    }
}
