//! Gated activations of feed-forward blocks: a row `[gate | up]` becomes one of half its width.

use burn::tensor::{Tensor, activation};

use super::cpu;

/// The function applied to the gate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// GELU, tanh approximation (`gelu_pytorch_tanh`).
    GeluTanh,
    /// SiLU (`silu`).
    Silu,
    /// gpt-oss: `g sigmoid(alpha g)` with the gate g clamped from above, times the up projection clamped
    /// on both sides plus 1 (`GptOssExperts._apply_gate` of transformers 5.23.0).
    ClampedSwish {
        /// Steepness of the logistic function (`swiglu_alpha`).
        alpha: f32,
        /// Bound of gate and up projection (`swiglu_limit`).
        limit: f32,
    },
}

impl Activation {
    /// The activation of this `hidden_activation` name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "gelu_pytorch_tanh" => Some(Activation::GeluTanh),
            "silu" => Some(Activation::Silu),
            _ => None,
        }
    }

    /// The function of the gate, elementwise.
    pub fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Activation::GeluTanh => activation::gelu_approximate(x),
            Activation::Silu => activation::silu(x),
            Activation::ClampedSwish { alpha, limit } => {
                let gate = x.clamp_max(limit);
                gate.clone() * activation::sigmoid(gate * alpha)
            }
        }
    }

    /// `act(gate) * up`, or what the activation makes of `up`, for `[gate | up]`: `[T, 2I] -> [T, I]`.
    pub fn gated(self, gate_up: Tensor<2>) -> Tensor<2> {
        let [t, both] = gate_up.dims();
        let width = both / 2;
        if cpu::is_cpu(&gate_up.device()) {
            let gate_up = cpu::host(gate_up);
            return cpu::tensor(cpu::rows::gated(cpu::f32s(&gate_up), width, self), [t, width]);
        }
        let gate = gate_up.clone().slice([0..t, 0..width]);
        let up = gate_up.slice([0..t, width..both]);
        let up = match self {
            Activation::ClampedSwish { limit, .. } => up.clamp(-limit, limit) + 1.0,
            Activation::GeluTanh | Activation::Silu => up,
        };
        self.apply(gate) * up
    }
}
