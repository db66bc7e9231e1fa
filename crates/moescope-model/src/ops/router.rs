//! From router logits to the experts of each token.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, activation};

use super::cpu;

/// How experts are chosen from a softmax over all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterRule {
    /// Experts per token, K.
    pub top_k: usize,
    /// Whether the chosen probabilities are divided by their sum.
    pub renormalise: bool,
}

/// What a router decided.
pub struct Choice {
    /// Softmax over all experts, `[T, E]`.
    pub probs: Tensor<2>,
    /// Chosen experts by falling probability, `[T, K]`.
    pub experts: Tensor<2, Int>,
    /// Weights to apply to their outputs, `[T, K]`.
    pub weights: Tensor<2>,
}

/// Softmax over `logits [T, E]` in f32, top-k, weights; `expert_scale [E]` multiplies the weight of
/// each expert after renormalisation.
pub fn route(logits: Tensor<2>, rule: RouterRule, expert_scale: Option<&Tensor<1>>) -> Choice {
    let [t, e] = logits.dims();
    let k = rule.top_k;
    if cpu::is_cpu(&logits.device()) {
        let logits = cpu::host(logits);
        let scale = expert_scale.cloned().map(cpu::host);
        let routed = cpu::rows::route(cpu::f32s(&logits), e, rule, scale.as_ref().map(cpu::f32s));
        return Choice {
            probs: cpu::tensor(routed.probs, [t, e]),
            experts: cpu::int_tensor(routed.experts, [t, k]),
            weights: cpu::tensor(routed.weights, [t, k]),
        };
    }
    let probs = activation::softmax(logits, 1);
    let (mut weights, experts) = probs.clone().topk_with_indices(k, 1);
    if rule.renormalise {
        let sum = weights.clone().sum_dim(1);
        weights = weights / sum;
    }
    if let Some(scale) = expert_scale {
        let flat = experts.clone().reshape([t * k]);
        weights = weights * scale.clone().select(0, flat).reshape([t, k]);
    }
    Choice { probs, experts, weights }
}

/// How sure a router was: entropy of its distribution, nats, and margin p(k-th) - p(k+1-th), `[T]` each.
///
/// `probs [T, E]`, `experts [T, K]` as [`route`] returns them; with K = E the margin is p(k-th).
pub fn spread(probs: Tensor<2>, experts: Tensor<2, Int>) -> (Tensor<1>, Tensor<1>) {
    let [t, e] = probs.dims();
    let [_, k] = experts.dims();
    if cpu::is_cpu(&probs.device()) {
        let (probs, experts) = (cpu::host(probs), cpu::host_ints(experts));
        let (entropy, margin) = cpu::rows::spread(cpu::f32s(&probs), cpu::i32s(&experts), e, k);
        return (cpu::tensor(entropy, [t]), cpu::tensor(margin, [t]));
    }
    let entropy = (probs.clone() * probs.clone().clamp_min(1e-30).log()).sum_dim(1).neg();
    let chosen = probs.clone().gather(1, experts.clone());
    let kth = chosen.clone().slice([0..t, k - 1..k]);
    // What is left when the chosen ones are taken away.
    let rest = probs.scatter(1, experts, chosen.neg(), IndexingUpdateOp::Add);
    (entropy.reshape([t]), (kth - rest.max_dim(1)).reshape([t]))
}
