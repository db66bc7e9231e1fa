//! DeepSeek-V3: latent attention, experts chosen from the best groups by corrected sigmoid scores, shared
//! experts, dense layers first (DeepSeek-AI, arXiv 2412.19437).
//!
//! Checked against `models/deepseek_v3/modeling_deepseek_v3.py` of transformers 5.23.0; `moe_layer_freq`,
//! which that ignores, is read as in the model's own published code.

use serde_json::{Value, json};

use super::Family;
use crate::{
    blocks::{
        config::{SigmoidDefaults, Sizes, experts, sigmoid_rule},
        decoder::{DecoderShape, EndsShape},
        latent::LatentShape,
        layer::{FeedForwardShape, PreNormShape},
        mlp::MlpShape,
        moe::{ExpertNames, MoeShape, SharedShape},
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
    let sizes = Sizes::read(&mut s)?;
    // How experts lie on devices, and losses of training.
    s.ignore(&["ep_size", "aux_loss_alpha", "seq_aux"]);
    if sizes.kv_heads != sizes.heads {
        let found = Value::from(sizes.kv_heads);
        return Err(s.unsupported("num_key_value_heads", &found));
    }
    let predictors = s.optional("num_nextn_predict_layers")?.or(s.optional("num_mtp_layers")?);
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
        context: sizes.context,
        ropes: vec![rope],
        layers: (0..sizes.layers).map(layer).collect(),
        active_embedding: false,
    };
    Ok((decoder, predictors.unwrap_or(0)))
}

fn attention(s: &mut Section, sizes: &Sizes) -> Result<(LatentShape, Rope)> {
    let (nope_dim, rope_dim) = (s.size("qk_nope_head_dim")?, s.size("qk_rope_head_dim")?);
    s.only("qk_head_dim", &[json!(nope_dim + rope_dim)])?;
    let defaults = RopeDefaults { theta: 10_000.0, head_dim: rope_dim, context: sizes.context };
    let config = RopeConfig::read(s, defaults)?;
    if config.fraction != 1.0 {
        let found = Value::from(config.fraction);
        return Err(s.unsupported("partial_rotary_factor", &found));
    }
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
    let names = ["n_routed_experts", "num_local_experts"];
    let (experts, top_k) = experts(s, &names, "num_experts_per_tok")?;
    let inner = s.size("moe_intermediate_size")?;
    let shared = s.optional::<usize>("n_shared_experts")?.unwrap_or(1);
    Ok(MoeShape {
        hidden: sizes.hidden,
        experts,
        inner,
        activation: sizes.activation,
        rule: sigmoid_rule(s, experts, top_k, DEFAULTS)?,
        correction: true,
        shared: (shared > 0).then_some(SharedShape { count: shared, inner: shared * inner }),
        names: ExpertNames::PROJ,
    })
}
