//! Experts whose weights are one tensor each in the checkpoint, with biases and with gate and up
//! projection interleaved column by column (gpt-oss).

use super::{
    moe::{Moe, Routed, Router},
    tensors::{Tensors, Weights},
};
use crate::{
    error::Result,
    ops::{
        activation::Activation,
        experts::{Biases, Experts, MoeImpl},
        linear::Linear,
        router::RouterRule,
    },
    spec::{MoeLayerSpec, Part},
};

/// What a config says about such a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedShape {
    /// Width of the residual stream, H.
    pub(crate) hidden: usize,
    /// Experts, E.
    pub(crate) experts: usize,
    /// Width of an expert, I.
    pub(crate) inner: usize,
    /// Applied to gate and up projection.
    pub(crate) activation: Activation,
    /// How experts are chosen.
    pub(crate) rule: RouterRule,
}

const GATE_UP: &str = "experts.gate_up_proj";
const DOWN: &str = "experts.down_proj";

impl PackedShape {
    /// The block as the rest of the crate sees it.
    pub(crate) fn spec(&self, layer: usize) -> MoeLayerSpec {
        MoeLayerSpec {
            layer: layer as u16,
            experts: self.experts as u16,
            top_k: self.rule.top_k as u16,
            shared_experts: 0,
        }
    }

    /// Adds its tensors, as they are stored unless quantised.
    pub(crate) fn declare(&self, tensors: &mut Tensors) {
        let PackedShape { hidden, experts, inner, .. } = *self;
        tensors.add("router.weight", &[experts, hidden], Part::Router);
        tensors.add("router.bias", &[experts], Part::Router);
        tensors.add(GATE_UP, &[experts, hidden, 2 * inner], Part::Experts);
        tensors.vectors(&format!("{GATE_UP}_bias"), [experts, 2 * inner], Part::Experts);
        tensors.add(DOWN, &[experts, inner, hidden], Part::Experts);
        tensors.vectors(&format!("{DOWN}_bias"), [experts, hidden], Part::Experts);
    }

    /// Loads it: rows of gate and up projection come apart, products run along rows.
    ///
    /// # Errors
    ///
    /// As [`crate::checkpoint::Loader::weight`].
    pub(crate) fn load(
        &self,
        w: &Weights<'_>,
        layer: usize,
        implementation: MoeImpl,
    ) -> Result<Moe> {
        let PackedShape { hidden, experts, inner, .. } = *self;
        // Where row r of `[gate | up]` lies among the interleaved ones.
        let interleaved = move |r: usize| if r < inner { 2 * r } else { 2 * (r - inner) + 1 };
        let gate_up_shape = [experts, 2 * inner, hidden];
        let (gate_up, down) = (w.in_mxfp4(GATE_UP, hidden)?, w.in_mxfp4(DOWN, inner)?);
        let gate_up = match gate_up {
            true => w.mxfp4(GATE_UP, gate_up_shape, interleaved)?,
            false => {
                let stored = w.stored(GATE_UP, &[experts, hidden, 2 * inner])?;
                w.upload(stored.transposed(hidden, 2 * inner, interleaved), gate_up_shape)?
            }
        };
        let down = match down {
            true => w.mxfp4(DOWN, [experts, hidden, inner], |row| row)?,
            false => {
                let stored = w.stored(DOWN, &[experts, inner, hidden])?;
                w.upload(stored.transposed(inner, hidden, |row| row), [experts, hidden, inner])?
            }
        };
        let gate_up_bias = w.exact(&format!("{GATE_UP}_bias"), [experts, 2 * inner])?;
        let gate_up_bias = gate_up_bias.reshape([experts, inner, 2]).swap_dims(1, 2);
        let biases = Biases {
            gate_up: gate_up_bias.reshape([experts, 2 * inner]),
            down: w.exact(&format!("{DOWN}_bias"), [experts, hidden])?,
        };
        let activation = self.activation;
        Ok(Moe {
            router: Router {
                projection: Linear {
                    weight: w.exact("router.weight", [experts, hidden])?.into(),
                    bias: Some(w.exact("router.bias", [experts])?),
                },
                correction: None,
                rule: self.rule,
            },
            routed: Routed {
                spec: self.spec(layer),
                experts: Experts { gate_up, down, biases: Some(biases), activation },
                implementation,
            },
            shared: None,
        })
    }
}
