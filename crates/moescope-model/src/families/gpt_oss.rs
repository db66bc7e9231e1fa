//! gpt-oss: attention with sinks, sliding and full layers in turn, biases everywhere, experts with a clamped
//! activation (OpenAI, arXiv 2508.10925).
//!
//! Checked against `models/gpt_oss/modeling_gpt_oss.py` of transformers 5.23.0. The MXFP4 weights of published
//! checkpoints are decoded while loading.

use serde_json::{Value, json};

use super::Family;
use crate::{
    blocks::{
        attention::AttentionShape,
        config::{LayerType, Sizes, experts, layer_types, rope},
        decoder::{DecoderShape, EndsShape},
        layer::{FeedForwardShape, PreNormShape},
        packed::PackedShape,
    },
    checkpoint::Checkpoint,
    config::Section,
    error::Result,
    ops::{activation::Activation, router::RouterRule},
};

/// The registry entry.
pub const FAMILY: Family = Family {
    name: "gpt-oss",
    architectures: &["GptOssForCausalLM"],
    describe: |checkpoint| read(checkpoint)?.spec(checkpoint),
    load: |checkpoint, options| read(checkpoint)?.load(checkpoint, options, &["model."], |_| false),
};

fn read(checkpoint: &Checkpoint) -> Result<DecoderShape<PreNormShape<AttentionShape>>> {
    let mut s = Section::new(checkpoint.config_path(), FAMILY.name, checkpoint.config().clone());
    let sizes = Sizes::read(&mut s)?;
    if sizes.activation != Activation::Silu {
        // The reference has one activation, whatever the config names.
        return Err(s.unsupported("hidden_act", &json!(format!("{:?}", sizes.activation))));
    }
    let names = ["num_local_experts", "num_experts"];
    let (experts, top_k) = experts(&mut s, &names, "num_experts_per_tok")?;
    // Published configs write it twice, and a length that `rope_scaling` has too.
    s.only("experts_per_token", &[json!(top_k)])?;
    s.ignore(&["initial_context_length"]);
    let moe = PackedShape {
        hidden: sizes.hidden,
        experts,
        inner: s.size("intermediate_size")?,
        activation: Activation::ClampedSwish {
            alpha: s.optional_positive("swiglu_alpha")?.unwrap_or(1.702),
            limit: s.optional_positive("swiglu_limit")?.unwrap_or(7.0),
        },
        rule: RouterRule::softmax_renormalised(top_k),
    };
    let bias = s.optional("attention_bias")?.unwrap_or(true);
    let window = s.size_or("sliding_window", 128)?;
    // Every other layer slides, the first one does.
    let in_turn = |i: usize| if i.is_multiple_of(2) { LayerType::Sliding } else { LayerType::Full };
    let kinds = layer_types(&mut s, sizes.layers)?;
    let kinds = kinds.unwrap_or_else(|| (0..sizes.layers).map(in_turn).collect());
    let layers = kinds.iter().map(|kind| PreNormShape {
        hidden: sizes.hidden,
        eps: sizes.eps,
        attention: AttentionShape {
            qkv_bias: bias,
            out_bias: bias,
            sinks: true,
            window: (*kind == LayerType::Sliding).then_some(window),
            ..AttentionShape::plain(&sizes)
        },
        feed_forward: FeedForwardShape::Packed(moe),
        feed_forward_name: "mlp",
    });
    let layers = layers.collect();
    if ["rope_scaling", "rope_parameters"].iter().all(|key| s.keys_in(key).is_empty()) {
        // The reference's default is a YaRN whose parameters the config should state.
        return Err(s.wrong("rope_scaling", "how positions are embedded", &Value::Null));
    }
    let ropes = vec![rope(&mut s, &sizes, 150_000.0)?];
    s.finish()?;
    Ok(DecoderShape {
        family: FAMILY.name,
        ends: EndsShape::plain(&sizes),
        ropes,
        layers,
        active_embedding: false,
    })
}
