//! Gated activations of feed-forward blocks.

use burn::tensor::{Tensor, activation};

use super::cpu;

/// The function applied to the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// GELU, tanh approximation (`gelu_pytorch_tanh`).
    GeluTanh,
    /// SiLU (`silu`).
    Silu,
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

    /// The function, elementwise.
    pub fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Activation::GeluTanh => activation::gelu_approximate(x),
            Activation::Silu => activation::silu(x),
        }
    }

    /// `act(gate) * up` for `[gate | up]`: `[T, 2I] -> [T, I]`.
    pub fn gated(self, gate_up: Tensor<2>) -> Tensor<2> {
        let [t, both] = gate_up.dims();
        let width = both / 2;
        if cpu::is_cpu(&gate_up.device()) {
            let gate_up = cpu::host(gate_up);
            return cpu::tensor(cpu::rows::gated(cpu::f32s(&gate_up), width, self), [t, width]);
        }
        let gate = gate_up.clone().slice([0..t, 0..width]);
        self.apply(gate) * gate_up.slice([0..t, width..both])
    }
}
