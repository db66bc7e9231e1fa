//! OLMoE: norms over all heads of queries and keys, probabilities as weights (N. Muennighoff et al.,
//! arXiv 2409.02060).
//!
//! Checked against `models/olmoe/modeling_olmoe.py` of transformers 5.23.0.

use serde_json::json;

use super::Family;
use crate::{
    blocks::{
        attention::{AttentionShape, NormOver, QkNorm},
        config::{Sizes, experts, rope},
        decoder::{DecoderShape, EndsShape},
        layer::{FeedForwardShape, PreNormShape},
        moe::{ExpertNames, MoeShape},
    },
    checkpoint::Checkpoint,
    config::Section,
    error::Result,
    ops::router::RouterRule,
};

/// The registry entry.
pub const FAMILY: Family = Family {
    name: "OLMoE",
    architectures: &["OlmoeForCausalLM"],
    describe: |checkpoint| read(checkpoint)?.spec(checkpoint),
    load: |checkpoint, options| read(checkpoint)?.load(checkpoint, options, &["model."], |_| false),
};

fn read(checkpoint: &Checkpoint) -> Result<DecoderShape<PreNormShape<AttentionShape>>> {
    let mut s = Section::new(checkpoint.config_path(), FAMILY.name, checkpoint.config().clone());
    let sizes = Sizes::read(&mut s)?;
    let width = sizes.heads * sizes.head_dim;
    if width != sizes.hidden {
        // The reference's norms over queries are as wide as the residual stream.
        return Err(s.unsupported("head_dim", &json!(sizes.head_dim)));
    }
    let (experts, top_k) =
        experts(&mut s, &["num_experts", "num_local_experts"], "num_experts_per_tok")?;
    let moe = MoeShape {
        hidden: sizes.hidden,
        experts,
        inner: s.size("intermediate_size")?,
        activation: sizes.activation,
        rule: RouterRule {
            renormalise: s.optional("norm_topk_prob")?.unwrap_or(false),
            ..RouterRule::softmax(top_k)
        },
        correction: false,
        shared: None,
        names: ExpertNames::PROJ,
    };
    let bias = s.optional("attention_bias")?.unwrap_or(false);
    let attention = AttentionShape {
        qkv_bias: bias,
        out_bias: bias,
        qk_norm: Some(QkNorm { over: NormOver::All, eps: sizes.eps, offset: 0.0 }),
        clip: s.optional_positive("clip_qkv")?,
        ..AttentionShape::plain(&sizes)
    };
    let layer = PreNormShape {
        hidden: sizes.hidden,
        eps: sizes.eps,
        attention,
        feed_forward: FeedForwardShape::Moe(moe),
        feed_forward_name: "mlp",
    };
    let ropes = vec![rope(&mut s, &sizes, 10_000.0)?];
    s.finish()?;
    Ok(DecoderShape {
        family: FAMILY.name,
        ends: EndsShape::plain(&sizes),
        ropes,
        layers: vec![layer; sizes.layers],
        active_embedding: true,
    })
}
