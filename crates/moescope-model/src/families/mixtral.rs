//! Mixtral: experts in every layer, weights renormalised over the chosen ones (A. Q. Jiang et al.,
//! arXiv 2401.04088).
//!
//! Checked against `models/mixtral/modeling_mixtral.py` of transformers 5.23.0.

use super::Family;
use crate::{
    blocks::{
        attention::AttentionShape,
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
    name: "Mixtral",
    architectures: &["MixtralForCausalLM"],
    describe: |checkpoint| read(checkpoint)?.spec(checkpoint),
    load: |checkpoint, options| read(checkpoint)?.load(checkpoint, options, &["model."], |_| false),
};

const NAMES: ExpertNames = ExpertNames { gate: "w1.weight", up: "w3.weight", down: "w2.weight" };

fn read(checkpoint: &Checkpoint) -> Result<DecoderShape<PreNormShape<AttentionShape>>> {
    let mut s = Section::new(checkpoint.config_path(), FAMILY.name, checkpoint.config().clone());
    let sizes = Sizes::read(&mut s)?;
    // Noise on the router's input is for training.
    s.ignore(&["router_jitter_noise"]);
    let (experts, top_k) =
        experts(&mut s, &["num_local_experts", "num_experts"], "num_experts_per_tok")?;
    let moe = MoeShape {
        hidden: sizes.hidden,
        experts,
        inner: s.size("intermediate_size")?,
        activation: sizes.activation,
        rule: RouterRule::softmax_renormalised(top_k),
        correction: false,
        shared: None,
        names: NAMES,
    };
    let attention = AttentionShape {
        window: s.optional_size("sliding_window")?,
        ..AttentionShape::plain(&sizes)
    };
    let layer = PreNormShape {
        hidden: sizes.hidden,
        eps: sizes.eps,
        attention,
        feed_forward: FeedForwardShape::Moe(moe),
        feed_forward_name: "block_sparse_moe",
    };
    let ropes = vec![rope(&mut s, &sizes, 1_000_000.0)?];
    s.finish()?;
    Ok(DecoderShape {
        family: FAMILY.name,
        ends: EndsShape::plain(&sizes),
        ropes,
        layers: vec![layer; sizes.layers],
        active_embedding: true,
    })
}
