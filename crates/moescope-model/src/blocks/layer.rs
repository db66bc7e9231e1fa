//! The layer most families share: norm, attention, sum; norm, feed-forward, sum.

use burn::tensor::Tensor;

use super::{
    decoder::{Layer, LayerShape, Pass},
    mlp::{Mlp, MlpShape},
    moe::{Moe, MoeShape},
    packed::PackedShape,
    tensors::{Tensors, Weights},
};
use crate::{
    error::Result,
    observer::Component,
    ops::{experts::MoeImpl, norm::RmsNorm},
    spec::{KvSpec, MoeLayerSpec, Part},
};

/// What a config says about how a layer mixes tokens.
pub(crate) trait MixShape: Send + Sync {
    /// The loaded form.
    type Loaded: Mix;

    /// Keys and values it keeps.
    fn kv(&self) -> KvSpec;

    /// Adds its tensors.
    fn declare(&self, tensors: &mut Tensors);

    /// Loads it for the layer `index`; fails as [`crate::checkpoint::Loader::weight`].
    fn load(&self, w: &Weights<'_>, index: usize) -> Result<Self::Loaded>;
}

/// How a layer mixes tokens.
pub(crate) trait Mix: Send + Sync {
    /// `[T, H] -> [T, H]`, of normalised rows.
    fn forward(&self, x: Tensor<2>, pass: &mut Pass<'_>) -> Tensor<2>;
}

/// What a config says about the feed-forward half of a layer.
#[derive(Clone, Debug)]
pub(crate) enum FeedForwardShape {
    /// One block every token uses.
    Dense(MlpShape),
    /// Experts, a tensor each.
    Moe(MoeShape),
    /// Experts, all in one tensor.
    Packed(PackedShape),
}

/// A layer as its config describes it; `A` is its attention.
#[derive(Clone, Debug)]
pub(crate) struct PreNormShape<A> {
    /// Width of the residual stream, H.
    pub(crate) hidden: usize,
    /// Epsilon of both norms.
    pub(crate) eps: f32,
    /// Attention, below `self_attn.`.
    pub(crate) attention: A,
    /// Feed-forward half.
    pub(crate) feed_forward: FeedForwardShape,
    /// What the family calls that half.
    pub(crate) feed_forward_name: &'static str,
}

const INPUT_NORM: &str = "input_layernorm.weight";
const MIDDLE_NORM: &str = "post_attention_layernorm.weight";

impl<A: MixShape> LayerShape for PreNormShape<A> {
    type Loaded = PreNorm<A::Loaded>;

    fn kv(&self) -> KvSpec {
        self.attention.kv()
    }

    fn moe(&self, index: usize) -> Option<MoeLayerSpec> {
        match &self.feed_forward {
            FeedForwardShape::Dense(_) => None,
            FeedForwardShape::Moe(moe) => Some(moe.spec(index)),
            FeedForwardShape::Packed(moe) => Some(moe.spec(index)),
        }
    }

    fn declare(&self, tensors: &mut Tensors) {
        tensors.add(INPUT_NORM, &[self.hidden], Part::Norms);
        tensors.add(MIDDLE_NORM, &[self.hidden], Part::Norms);
        tensors.within("self_attn", |tensors| self.attention.declare(tensors));
        tensors.within(self.feed_forward_name, |tensors| match &self.feed_forward {
            FeedForwardShape::Dense(mlp) => mlp.declare(tensors, Part::Mlp),
            FeedForwardShape::Moe(moe) => moe.declare(tensors),
            FeedForwardShape::Packed(moe) => moe.declare(tensors),
        });
    }

    fn load(&self, w: &Weights<'_>, index: usize, moe_impl: MoeImpl) -> Result<Self::Loaded> {
        let norm = |name| w.norm(name, self.hidden, self.eps, 0.0);
        let below = w.within(self.feed_forward_name);
        Ok(PreNorm {
            index: index as u16,
            input_norm: norm(INPUT_NORM)?,
            attention: self.attention.load(&w.within("self_attn"), index)?,
            middle_norm: norm(MIDDLE_NORM)?,
            feed_forward: match &self.feed_forward {
                FeedForwardShape::Dense(mlp) => FeedForward::Dense(Box::new(mlp.load(&below)?)),
                FeedForwardShape::Moe(moe) => {
                    FeedForward::Moe(Box::new(moe.load(&below, index, moe_impl)?))
                }
                FeedForwardShape::Packed(moe) => {
                    FeedForward::Moe(Box::new(moe.load(&below, index, moe_impl)?))
                }
            },
        })
    }
}

/// A layer.
pub(crate) struct PreNorm<A> {
    index: u16,
    input_norm: RmsNorm,
    attention: A,
    middle_norm: RmsNorm,
    feed_forward: FeedForward,
}

enum FeedForward {
    Dense(Box<Mlp>),
    Moe(Box<Moe>),
}

impl<A: Mix> Layer for PreNorm<A> {
    fn forward(&self, x: Tensor<2>, pass: &mut Pass<'_>) -> Tensor<2> {
        let layer = Some(self.index);
        let attended = self.attention.forward(self.input_norm.forward(x.clone()), pass);
        let x = x + attended;
        pass.observer.component_done(layer, Component::Attention);
        let normed = self.middle_norm.forward(x.clone());
        let out = match &self.feed_forward {
            FeedForward::Dense(mlp) => {
                let out = mlp.forward(normed);
                pass.observer.component_done(layer, Component::Mlp);
                out
            }
            FeedForward::Moe(moe) => moe.forward(normed, pass),
        };
        let x = x + out;
        pass.observer.component_done(layer, Component::Rest);
        x
    }
}
