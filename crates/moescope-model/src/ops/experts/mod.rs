//! The experts layer: each token's feed-forward block is a weighted sum of a few small ones.
//!
//! Several implementations compute the same sum; [`IMPLEMENTATIONS`] lists them.

mod dense;
mod extension;
mod kernels;
mod selected;

use std::{fmt, str::FromStr};

use burn::tensor::Tensor;

use super::{activation::Activation, pieces::Pieces, router::Choice};

/// The weights of an experts layer.
#[derive(Clone, Debug)]
pub struct Experts {
    /// Gate and up projections of every expert, `[E, 2I, H]`.
    pub gate_up: Pieces<3>,
    /// Down projections, `[E, H, I]`.
    pub down: Pieces<3>,
    /// Added to the projections, where the family has them.
    pub biases: Option<Biases>,
    /// Applied to gate and up projection.
    pub activation: Activation,
}

/// Biases of an experts layer, f32.
#[derive(Clone, Debug)]
pub struct Biases {
    /// Of the gate and up projections, `[E, 2I]`.
    pub gate_up: Tensor<2>,
    /// Of the down projections, `[E, H]`.
    pub down: Tensor<2>,
}

/// What an experts layer computed.
pub struct Mixture {
    /// Each token's weighted sum over its experts, `[T, H]`.
    pub sum: Tensor<2>,
    /// L2 norm of each selected expert's output before its weight, `[T, K]`, if asked for.
    pub output_norms: Option<Tensor<2>>,
}

/// A way to compute an experts layer (`--moe-impl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoeImpl {
    /// Reads and multiplies the selected experts only.
    Selected,
    /// Runs every expert on every token and masks: E/K times the work, the reference.
    Dense,
}

/// One line per implementation.
pub const IMPLEMENTATIONS: &[(&str, MoeImpl)] =
    &[("selected", MoeImpl::Selected), ("dense", MoeImpl::Dense)];

impl Experts {
    /// Sum over each token's experts of weight * down(act(gate(x)) * up(x)) for `x [T, H]`; with
    /// `output_norms` also how large each term was before its weight.
    pub fn forward(
        &self,
        x: Tensor<2>,
        choice: &Choice,
        implementation: MoeImpl,
        output_norms: bool,
    ) -> Mixture {
        match implementation {
            MoeImpl::Selected => selected::forward(self, x, choice, output_norms),
            MoeImpl::Dense => dense::forward(self, x, choice, output_norms),
        }
    }
}

impl MoeImpl {
    /// Name on the command line and in the manifest.
    pub fn as_str(self) -> &'static str {
        // Every variant is in the list; a test holds it there.
        IMPLEMENTATIONS.iter().find(|(_, i)| *i == self).map_or("", |(name, _)| name)
    }
}

impl fmt::Display for MoeImpl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for MoeImpl {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        IMPLEMENTATIONS.iter().find(|(name, _)| *name == s).map(|(_, i)| *i).ok_or_else(|| {
            let known: Vec<&str> = IMPLEMENTATIONS.iter().map(|(name, _)| *name).collect();
            format!("unknown implementation {s:?}; expected one of {}", known.join(", "))
        })
    }
}
