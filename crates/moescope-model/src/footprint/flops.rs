//! Floating-point operations of a pass.

use super::PassShape;
use crate::spec::{KvSpec, LatentSpec, ModelSpec, Part, Role, TensorSpec};

/// Floating-point operations; a multiplication and an addition are two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flops {
    /// Products with weights: 2 x the parameters a token multiplies (of K of E experts, shared experts,
    /// routers, attention projections, dense blocks) per token, and 2 x those of the output head for every
    /// row of logits.
    pub products: f64,
    /// Scores and weighted values: 2 x query heads x (D + Dv) per query and key it sees; and where latents of
    /// earlier tokens are expanded again, that.
    pub attention: f64,
}

impl Flops {
    /// Both.
    pub fn total(&self) -> f64 {
        self.products + self.attention
    }
}

/// Operations for one token that follows `context` others and gets logits: products are 2 x the active
/// parameters used, the numerator of sparse MFU.
pub fn flops_per_token(spec: &ModelSpec, context: usize) -> Flops {
    flops(spec, PassShape::decode(1, context))
}

/// Operations of a pass that gives logits for the last token of each sequence.
///
/// In latent attention a pass attends in the space of the latents or over expanded keys and values, as
/// [`crate::spec::LatentSpec::expands`] decides. Lookups, norms and activations are not counted.
pub fn flops(spec: &ModelSpec, pass: PassShape) -> Flops {
    let tokens = pass.tokens() as f64;
    let products: f64 = spec.tensors.iter().map(|t| per_token(spec, t)).sum::<f64>() * tokens;
    let head: u64 =
        spec.tensors.iter().filter(|t| is_head(spec, t)).map(TensorSpec::parameters).sum();
    let attention = spec.kv.iter().map(|kv| attended(kv, pass) * pass.batch as f64);
    Flops {
        products: 2.0 * (products + head as f64 * pass.batch as f64),
        attention: attention.sum(),
    }
}

/// Operations of the attention of a layer, for one sequence.
fn attended(kv: &KvSpec, pass: PassShape) -> f64 {
    let heads = kv.query_heads as f64;
    let seen = keys_seen(pass, kv.window);
    match kv.latent {
        Some(latent) if latent.expands(pass.new, pass.context + pass.new) => {
            let LatentSpec { rank, nope_dim, rope_dim, value_dim } = latent;
            let over_keys = (nope_dim + rope_dim + value_dim) as f64 * seen;
            // Those of the new tokens are products with weights like any other.
            let again = (pass.context * rank * (nope_dim + value_dim)) as f64;
            2.0 * heads * (over_keys + again)
        }
        _ => 2.0 * heads * (kv.head_dim + kv.attended_dim) as f64 * seen,
    }
}

/// Parameters of a tensor that multiply a token on average.
fn per_token(spec: &ModelSpec, tensor: &TensorSpec) -> f64 {
    let all = tensor.parameters() as f64;
    match (tensor.role, tensor.part) {
        (Role::Table | Role::Vector, _) | (_, Part::Head) => 0.0,
        (_, Part::Experts) => match spec.moe_of(tensor.layer) {
            Some(moe) => all * f64::from(moe.top_k) / f64::from(moe.experts),
            None => all,
        },
        _ => all,
    }
}

fn is_head(spec: &ModelSpec, tensor: &TensorSpec) -> bool {
    tensor.part == Part::Head || (tensor.part == Part::Embedding && spec.is_tied())
}

/// Keys all new tokens of one sequence see, each its own and those before it, at most `window`.
fn keys_seen(pass: PassShape, window: Option<usize>) -> f64 {
    let (context, new) = (pass.context as f64, pass.new as f64);
    let window = window.map_or(f64::INFINITY, |window| window as f64);
    // Tokens that see everything before them, and those that see a whole window.
    let growing = (window - context).clamp(0.0, new);
    let growing_keys = growing * context + growing * (growing + 1.0) / 2.0;
    match new > growing {
        true => growing_keys + (new - growing) * window,
        false => growing_keys,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_sees_its_window() {
        for window in [None, Some(1), Some(4), Some(9), Some(30)] {
            for (context, new) in [(0, 1), (0, 7), (3, 1), (3, 8), (8, 5), (9, 1), (20, 2)] {
                let pass = PassShape { batch: 1, new, context };
                let seen = (0..new).map(|i| window.map_or(usize::MAX, |w| w).min(context + i + 1));
                let want = seen.sum::<usize>() as f64;
                assert_eq!(keys_seen(pass, window), want, "{window:?} {context} {new}");
            }
        }
    }
}
