//! Qwen3-MoE: normalised query and key heads, dense layers in between where the config asks for them
//! (Qwen team, arXiv 2505.09388).
//!
//! Checked against `models/qwen3_moe/modeling_qwen3_moe.py` of transformers 5.23.0.

use serde_json::{Value, json};

use super::Family;
use crate::{
    blocks::{
        attention::{AttentionShape, NormOver, QkNorm},
        config::{Sizes, experts, rope},
        decoder::{DecoderShape, EndsShape},
        layer::{FeedForwardShape, PreNormShape},
        mlp::MlpShape,
        moe::{ExpertNames, MoeShape},
    },
    checkpoint::Checkpoint,
    config::Section,
    error::Result,
    ops::router::RouterRule,
};

/// The registry entry.
pub const FAMILY: Family = Family {
    name: "Qwen3-MoE",
    architectures: &["Qwen3MoeForCausalLM"],
    describe: |checkpoint| read(checkpoint)?.spec(checkpoint),
    load: |checkpoint, options| read(checkpoint)?.load(checkpoint, options, &["model."], |_| false),
};

fn read(checkpoint: &Checkpoint) -> Result<DecoderShape<PreNormShape<AttentionShape>>> {
    let mut s = Section::new(checkpoint.config_path(), FAMILY.name, checkpoint.config().clone());
    let sizes = Sizes::read(&mut s)?;
    // Keys of other Qwen models that some published configs carry.
    s.only("shared_expert_intermediate_size", &[json!(0)])?;
    s.only("qkv_bias", &[json!(false)])?;
    s.only("use_qk_norm", &[json!(true)])?;

    let (experts, top_k) =
        experts(&mut s, &["num_experts", "num_local_experts"], "num_experts_per_tok")?;
    let moe = MoeShape {
        hidden: sizes.hidden,
        experts,
        inner: s.size("moe_intermediate_size")?,
        activation: sizes.activation,
        rule: RouterRule {
            renormalise: s.optional("norm_topk_prob")?.unwrap_or(false),
            ..RouterRule::softmax(top_k)
        },
        correction: false,
        shared: None,
        names: ExpertNames::PROJ,
    };
    let dense = MlpShape {
        hidden: sizes.hidden,
        inner: s.size("intermediate_size")?,
        activation: sizes.activation,
    };
    let bias = s.optional("attention_bias")?.unwrap_or(false);
    let attention = AttentionShape {
        qkv_bias: bias,
        out_bias: bias,
        qk_norm: Some(QkNorm { over: NormOver::Head, eps: sizes.eps, offset: 0.0 }),
        window: window(&mut s)?,
        ..AttentionShape::plain(&sizes)
    };
    let layers = sparse_layers(&mut s, sizes.layers)?.into_iter().map(|sparse| PreNormShape {
        hidden: sizes.hidden,
        eps: sizes.eps,
        attention,
        feed_forward: match sparse {
            true => FeedForwardShape::Moe(moe),
            false => FeedForwardShape::Dense(dense),
        },
        feed_forward_name: "mlp",
    });
    let layers = layers.collect();
    let ropes = vec![rope(&mut s, &sizes, 10_000.0)?];
    s.finish()?;
    Ok(DecoderShape {
        family: FAMILY.name,
        ends: EndsShape::plain(&sizes),
        ropes,
        layers,
        active_embedding: true,
    })
}

/// Which layers have experts.
fn sparse_layers(s: &mut Section, layers: usize) -> Result<Vec<bool>> {
    let step = s.size_or("decoder_sparse_step", 1)?;
    let dense = s.optional::<Vec<usize>>("mlp_only_layers")?.unwrap_or_default();
    if let Some(layer) = dense.iter().find(|layer| **layer >= layers) {
        let expected = format!("layers below {layers}");
        return Err(s.wrong("mlp_only_layers", &expected, &Value::from(*layer)));
    }
    Ok((0..layers).map(|i| (i + 1).is_multiple_of(step) && !dense.contains(&i)).collect())
}

/// The sliding window of all layers, if the config switches it on.
fn window(s: &mut Section) -> Result<Option<usize>> {
    // To the reference a window that is null is none, and one that is absent has its default size.
    let absent = !s.has("sliding_window");
    let window = s.optional_size("sliding_window")?.or(absent.then_some(4096));
    if !s.optional("use_sliding_window")?.unwrap_or(false) {
        s.ignore(&["max_window_layers"]);
        return Ok(None);
    }
    // The reference slides in every layer and does not look at this; older Qwen models start there.
    s.only("max_window_layers", &[])?;
    Ok(window)
}
