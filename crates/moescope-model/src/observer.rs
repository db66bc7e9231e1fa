//! Hooks a forward pass calls. What they receive are handles to device tensors: nothing is read
//! back unless the observer does so.

use burn::tensor::{Int, Tensor};

use crate::{
    forced::ForcedExperts,
    ops::router::{Choice, trace},
};

/// Routing of one MoE layer for the tokens of one forward pass.
///
/// Shapes: T tokens (batch x new tokens, row-major), E experts, K experts per token.
#[derive(Clone, Debug)]
pub struct Routing {
    /// Index among all decoder layers.
    pub layer: u16,
    /// A distribution over all experts, `[T, E]`, f32: the router's softmax, or its sigmoid scores divided
    /// by their sum.
    pub probs: Tensor<2>,
    /// What experts were chosen by where that is not `probs`, `[T, E]`, f32; see [`Choice::scores`].
    pub scores: Option<Tensor<2>>,
    /// Selected experts in rank order, `[T, K]`; those [forced](Observer::forced_experts) where some were.
    pub experts: Tensor<2, Int>,
    /// Weights as applied to the experts' outputs, `[T, K]`, f32.
    pub weights: Tensor<2>,
    /// L2 norm of each selected expert's output before its weight is applied, `[T, K]`, f32; only for
    /// observers that [want](Observer::wants_output_norms) them.
    pub output_norms: Option<Tensor<2>>,
}

impl Routing {
    /// What the router of `layer` decided.
    pub fn of(layer: u16, choice: Choice, output_norms: Option<Tensor<2>>) -> Self {
        let Choice { probs, scores, experts, weights } = choice;
        Routing { layer, probs, scores, experts, weights, output_norms }
    }

    /// The decision as it is recorded, `[T, 2 K + 2]`: experts, weights, entropy (nats), margin; see [`trace`].
    pub fn trace(&self) -> Tensor<2> {
        let (probs, scores) = (self.probs.clone(), self.scores.clone());
        trace(probs, scores, self.experts.clone(), self.weights.clone())
    }
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
    /// Whether [`Routing::output_norms`] should be computed, at the cost of keeping every selected expert's
    /// output apart for a moment.
    fn wants_output_norms(&self) -> bool {
        false
    }

    /// Experts the `tokens` tokens of this pass use in `layer` whatever its router chooses. `None`, the
    /// default, leaves the choice to the router and costs nothing.
    ///
    /// The router runs in any case and its scores at the forced experts become their weights, by the
    /// family's own rule; on a GPU looking those scores up is one dispatch more per layer. Asked once per
    /// MoE layer and pass, in order. Whoever wraps another observer passes its answer on.
    fn forced_experts(&mut self, _layer: u16, _tokens: usize) -> Option<ForcedExperts> {
        None
    }

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
