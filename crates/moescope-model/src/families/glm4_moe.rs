//! GLM-4.5: sigmoid scores with a correction for the choice, shared experts, dense layers first, heads
//! that turn in part (GLM-4.5 team, arXiv 2508.06471).
//!
//! Checked against `models/glm4_moe/modeling_glm4_moe.py` of transformers 5.23.0.

use super::Family;
use crate::{
    blocks::{
        attention::{AttentionShape, NormOver, QkNorm},
        config::{Sizes, predictors},
        decoder::{DecoderShape, EndsShape},
        layer::{FeedForwardShape, PreNormShape},
        mlp::MlpShape,
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
    name: "GLM-4.5",
    architectures: &["Glm4MoeForCausalLM"],
    describe: |checkpoint| read(checkpoint)?.shape.spec(checkpoint),
    load: |checkpoint, options| {
        let Glm { shape, predicting } = read(checkpoint)?;
        let first = shape.layers.len();
        let skip = |name: &str| predicts(name, first, predicting);
        shape.load(checkpoint, options, &["model."], skip)
    },
};

/// Base of the frequencies where a config has none.
const THETA: f64 = 10_000.0;

/// What the reference means by keys a config does not have.
const DEFAULTS: SigmoidDefaults = SigmoidDefaults { groups: 1, chosen: 1, scale: 1.0 };

struct Glm {
    shape: DecoderShape<PreNormShape<AttentionShape>>,
    /// Layers after the decoder's that predict tokens further ahead; not part of a forward pass.
    predicting: usize,
}

fn read(checkpoint: &Checkpoint) -> Result<Glm> {
    let mut s = Section::new(checkpoint.config_path(), FAMILY.name, checkpoint.config().clone());
    let sizes = Sizes::read(&mut s)?;
    let predicting = predictors(&mut s)?;
    let moe = sigmoid_moe(&mut s, &sizes, DEFAULTS)?;
    let dense = MlpShape {
        hidden: sizes.hidden,
        inner: s.size("intermediate_size")?,
        activation: sizes.activation,
    };
    let norm = QkNorm { over: NormOver::Head, eps: sizes.eps, offset: 0.0 };
    let attention = AttentionShape {
        qkv_bias: s.optional("attention_bias")?.unwrap_or(false),
        qk_norm: s.optional("use_qk_norm")?.unwrap_or(false).then_some(norm),
        ..AttentionShape::plain(&sizes)
    };
    let first_sparse = s.optional("first_k_dense_replace")?.unwrap_or(1);
    let layer = |index| PreNormShape {
        hidden: sizes.hidden,
        eps: sizes.eps,
        attention,
        feed_forward: match index < first_sparse {
            true => FeedForwardShape::Dense(dense),
            false => FeedForwardShape::Moe(moe),
        },
        feed_forward_name: "mlp",
    };
    let rope = rope(&mut s, &sizes)?;
    s.finish()?;
    let shape = DecoderShape {
        family: FAMILY.name,
        ends: EndsShape::plain(&sizes),
        ropes: vec![rope],
        layers: (0..sizes.layers).map(layer).collect(),
        active_embedding: false,
    };
    Ok(Glm { shape, predicting })
}

fn rope(s: &mut Section, sizes: &Sizes) -> Result<Rope> {
    // Half of a head turns where the config says nothing.
    let whole = RopeDefaults::whole(THETA, sizes.head_dim, sizes.context);
    let config = RopeConfig::read(s, RopeDefaults { fraction: 0.5, ..whole })?;
    Ok(Rope::new(config, Pairing::Halves))
}
