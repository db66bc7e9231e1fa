//! The gated feed-forward block: `down(act(gate(x)) * up(x))`.

use burn::tensor::Tensor;

use super::tensors::{Tensors, Weights};
use crate::{
    error::Result,
    ops::{activation::Activation, linear::linear, pieces::Pieces},
    spec::Part,
};

/// What a config says about a feed-forward block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MlpShape {
    /// Width of the residual stream, H.
    pub(crate) hidden: usize,
    /// Width in between, I.
    pub(crate) inner: usize,
    /// Applied to the gate.
    pub(crate) activation: Activation,
}

/// A feed-forward block.
pub(crate) struct Mlp {
    /// Gate over up, `[2I, H]`: one product for both.
    gate_up: Pieces<2>,
    /// `[H, I]`.
    down: Pieces<2>,
    activation: Activation,
}

impl MlpShape {
    /// Adds its tensors.
    pub(crate) fn declare(&self, tensors: &mut Tensors, part: Part) {
        tensors.add("gate_proj.weight", &[self.inner, self.hidden], part);
        tensors.add("up_proj.weight", &[self.inner, self.hidden], part);
        tensors.add("down_proj.weight", &[self.hidden, self.inner], part);
    }

    /// Loads it.
    ///
    /// # Errors
    ///
    /// As [`crate::checkpoint::Loader::weight`].
    pub(crate) fn load(&self, w: &Weights<'_>) -> Result<Mlp> {
        let halves = [("gate_proj.weight", self.inner), ("up_proj.weight", self.inner)];
        Ok(Mlp {
            gate_up: w.stacked(&halves, self.hidden)?,
            down: w.weight("down_proj.weight", [self.hidden, self.inner])?,
            activation: self.activation,
        })
    }
}

impl Mlp {
    /// `[T, H] -> [T, H]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        linear(self.activation.gated(linear(x, &self.gate_up)), &self.down)
    }
}
