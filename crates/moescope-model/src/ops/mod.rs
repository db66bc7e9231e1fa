//! The building blocks families are written in.
//!
//! Every operation is one function on tensors. On the CPU (`flex`) it runs a kernel of this crate; on a
//! GPU it is a CubeCL kernel of this crate, or a short composition of Burn operations that fusion turns into
//! few dispatches. Activations are f32; weights are in the compute type, and what is multiplied with
//! them is rounded to it on a GPU, for the product alone.
//!
//! Dimension letters: B sequences, S new tokens per sequence, T = B S tokens, H width of the residual
//! stream, E experts, K experts per token, I width of an expert or MLP, N heads, D head size, C slots
//! of the cache, V vocabulary.

pub mod activation;
pub mod attention;
pub(crate) mod cpu;
pub mod embedding;
pub mod experts;
mod gpu;
pub mod linear;
pub mod logits;
pub mod norm;
pub mod pieces;
pub mod rope;
pub mod router;

/// Whether tensors on this device lie in host memory, so that reading them costs nothing.
pub fn on_cpu(device: &burn::tensor::Device) -> bool {
    cpu::is_cpu(device)
}
