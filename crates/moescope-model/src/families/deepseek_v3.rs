//! DeepSeek-V3: latent attention, experts chosen from the best groups by corrected sigmoid scores, shared
//! experts, dense layers first (DeepSeek-AI, arXiv 2412.19437).
//!
//! Checked against `models/deepseek_v3/modeling_deepseek_v3.py` of transformers 5.23.0; `moe_layer_freq`,
//! which that ignores, is read as in the model's own published code.

use serde_json::{Value, json};

use super::Family;
use crate::{
    blocks::{
        config::{SizeDefaults, Sizes, predictors, whole_head},
        decoder::{DecoderShape, EndsShape},
        latent::LatentShape,
        layer::{FeedForwardShape, PreNormShape},
        mlp::MlpShape,
        moe::MoeShape,
        sigmoid::{SigmoidDefaults, sigmoid_moe},
        tensors::predicts,
    },
    checkpoint::Checkpoint,
    config::Section,
    error::Result,
    ops::rope::{Pairing, Rope, RopeConfig, RopeDefaults},
};

/// The registry entry.
pub const FAMILY: Family = Family {
    name: "DeepSeek-V3",
    architectures: &["DeepseekV3ForCausalLM"],
    describe: |checkpoint| read(checkpoint)?.0.spec(checkpoint),
    load: |checkpoint, options| {
        let (decoder, predictors) = read(checkpoint)?;
        let layers = decoder.layers.len();
        let skip = |name: &str| predicts(name, layers, predictors);
        decoder.load(checkpoint, options, &["model."], skip)
    },
};

/// What the reference means by keys a config does not have.
const DEFAULTS: SigmoidDefaults = SigmoidDefaults { groups: 8, chosen: 4, scale: 2.5 };

/// The decoder, and how many layers after it predict further tokens.
fn read(checkpoint: &Checkpoint) -> Result<(DecoderShape<PreNormShape<LatentShape>>, usize)> {
    let mut s = Section::new(checkpoint.config_path(), FAMILY.name, checkpoint.config().clone());
    // Heads have sizes of their own here; the reference writes that of the part that turns as `head_dim`.
    let rope_dim = s.size("qk_rope_head_dim")?;
    s.only("head_dim", &[json!(rope_dim)])?;
    let defaults = SizeDefaults { head_dim: Some(rope_dim), ..SizeDefaults::NONE };
    let sizes = Sizes::read_with(&mut s, &defaults)?;
    // How experts lie on devices, and losses of training.
    s.ignore(&["ep_size", "aux_loss_alpha", "seq_aux"]);
    if sizes.kv_heads != sizes.heads {
        let found = Value::from(sizes.kv_heads);
        return Err(s.unsupported("num_key_value_heads", &found));
    }
    let predicting = predictors(&mut s)?;
    let (attention, rope) = attention(&mut s, &sizes)?;
    let moe = moe(&mut s, &sizes)?;
    let dense = MlpShape {
        hidden: sizes.hidden,
        inner: s.size("intermediate_size")?,
        activation: sizes.activation,
    };
    let first = s.optional::<usize>("first_k_dense_replace")?.unwrap_or(3);
    let step = s.size_or("moe_layer_freq", 1)?;
    let layer = |i: usize| PreNormShape {
        hidden: sizes.hidden,
        eps: sizes.eps,
        attention,
        feed_forward: match i >= first && i.is_multiple_of(step) {
            true => FeedForwardShape::Moe(moe),
            false => FeedForwardShape::Dense(dense),
        },
        feed_forward_name: "mlp",
    };
    s.finish()?;
    let decoder = DecoderShape {
        family: FAMILY.name,
        ends: EndsShape::plain(&sizes),
        ropes: vec![rope],
        layers: (0..sizes.layers).map(layer).collect(),
        active_embedding: false,
    };
    Ok((decoder, predicting))
}

fn attention(s: &mut Section, sizes: &Sizes) -> Result<(LatentShape, Rope)> {
    let (nope_dim, rope_dim) = (s.size("qk_nope_head_dim")?, sizes.head_dim);
    s.only("qk_head_dim", &[json!(nope_dim + rope_dim)])?;
    let defaults = RopeDefaults::whole(10_000.0, rope_dim, sizes.context);
    let config = RopeConfig::read(s, defaults)?;
    let config = whole_head(s, config)?;
    let scale = ((nope_dim + rope_dim) as f64).powf(-0.5) * config.score_factor();
    let pairing = match s.optional("rope_interleave")?.unwrap_or(true) {
        true => Pairing::Neighbours,
        false => Pairing::Halves,
    };
    let attention = LatentShape {
        hidden: sizes.hidden,
        heads: sizes.heads,
        q_rank: s.optional_size("q_lora_rank")?,
        rank: s.size("kv_lora_rank")?,
        nope_dim,
        rope_dim,
        value_dim: s.size("v_head_dim")?,
        bias: s.optional("attention_bias")?.unwrap_or(false),
        scale: scale as f32,
    };
    Ok((attention, Rope::new(config, pairing)))
}

fn moe(s: &mut Section, sizes: &Sizes) -> Result<MoeShape> {
    s.only("scoring_func", &[json!("sigmoid")])?;
    s.only("topk_method", &[json!("noaux_tc")])?;
    sigmoid_moe(s, sizes, DEFAULTS)
}
