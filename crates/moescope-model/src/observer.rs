//! Hooks a forward pass calls. What they receive are handles to device tensors: nothing is read
//! back unless the observer does so.

use burn::tensor::{Int, Tensor};

/// Routing of one MoE layer for the tokens of one forward pass.
///
/// Shapes: T tokens (batch x new tokens, row-major), E experts, K experts per token.
#[derive(Clone, Debug)]
pub struct Routing {
    /// Index among all decoder layers.
    pub layer: u16,
    /// Router probabilities over all experts, `[T, E]`, f32.
    pub probs: Tensor<2>,
    /// Selected experts in rank order, `[T, K]`.
    pub experts: Tensor<2, Int>,
    /// Weights as applied to the experts' outputs, `[T, K]`, f32.
    pub weights: Tensor<2>,
}

/// A part of a forward pass that can be timed by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// Token (and per-layer) embedding.
    Embedding,
    /// Attention with its norms and projections.
    Attention,
    /// Dense feed-forward block.
    Mlp,
    /// Router.
    Router,
    /// Routed experts.
    Experts,
    /// What is left of a layer: per-layer inputs, norms, residual sums.
    Rest,
    /// Final norm and output head.
    Head,
}

impl Component {
    /// Name in the `component` column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Component::Embedding => "embedding",
            Component::Attention => "attention",
            Component::Mlp => "mlp",
            Component::Router => "router",
            Component::Experts => "experts",
            Component::Rest => "rest",
            Component::Head => "head",
        }
    }
}

/// Watches a forward pass. Every method does nothing by default.
///
/// Hidden states are `[T, H]`, f32.
pub trait Observer: Send {
    /// The residual stream after the embedding.
    fn embedded(&mut self, _hidden: &Tensor<2>) {}

    /// A MoE layer chose its experts.
    fn routed(&mut self, _routing: Routing) {}

    /// A component of `layer` (`None`: outside the layers) has been issued.
    fn component_done(&mut self, _layer: Option<u16>, _component: Component) {}

    /// The residual stream after a decoder layer.
    fn layer_done(&mut self, _layer: u16, _hidden: &Tensor<2>) {}

    /// The residual stream after the final norm.
    fn step_done(&mut self, _normed: &Tensor<2>) {}
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}
