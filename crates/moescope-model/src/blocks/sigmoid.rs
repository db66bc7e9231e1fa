//! Experts chosen by sigmoid scores in groups, with experts that every token uses: DeepSeek-V3 and its kin.

use serde_json::Value;

use super::{
    config::{Sizes, divides, experts},
    moe::{ExpertNames, MoeShape, SharedShape},
};
use crate::{
    config::Section,
    error::Result,
    ops::router::{Groups, RouterRule, Scoring},
};

/// What a family with sigmoid scores means by a key its config does not have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SigmoidDefaults {
    /// `n_group`.
    pub(crate) groups: usize,
    /// `topk_group`.
    pub(crate) chosen: usize,
    /// `routed_scaling_factor`.
    pub(crate) scale: f32,
}

/// Sigmoid scores, groups, renormalisation and scale, as DeepSeek-V3 and its kin spell them.
fn sigmoid_rule(
    s: &mut Section,
    experts: usize,
    top_k: usize,
    defaults: SigmoidDefaults,
) -> Result<RouterRule> {
    let count = s.size_or("n_group", defaults.groups)?;
    let chosen = s.size_or("topk_group", defaults.chosen)?;
    divides(s, "n_group", count, experts)?;
    let size = experts / count;
    if count > 1 && size < 2 {
        // A group is judged by its two best experts.
        let expected = format!("groups of at least two of {experts} experts");
        return Err(s.wrong("n_group", &expected, &Value::from(count)));
    }
    if chosen > count || chosen * size < top_k {
        let expected = format!("at most {count} groups, together of {top_k} experts or more");
        return Err(s.wrong("topk_group", &expected, &Value::from(chosen)));
    }
    Ok(RouterRule {
        top_k,
        scoring: Scoring::Sigmoid,
        groups: (chosen < count).then_some(Groups { count, chosen }),
        renormalise: s.optional("norm_topk_prob")?.unwrap_or(true),
        scale: s.optional("routed_scaling_factor")?.unwrap_or(defaults.scale),
    })
}

/// Routed and shared experts of DeepSeek-V3 and its kin.
pub(crate) fn sigmoid_moe(
    s: &mut Section,
    sizes: &Sizes,
    defaults: SigmoidDefaults,
) -> Result<MoeShape> {
    let (experts, top_k) =
        experts(s, &["n_routed_experts", "num_local_experts"], "num_experts_per_tok")?;
    let inner = s.size("moe_intermediate_size")?;
    let shared = s.optional_count("n_shared_experts")?.unwrap_or(1);
    Ok(MoeShape {
        hidden: sizes.hidden,
        experts,
        inner,
        activation: sizes.activation,
        rule: sigmoid_rule(s, experts, top_k, defaults)?,
        correction: true,
        shared: (shared > 0).then_some(SharedShape { count: shared, inner: shared * inner }),
        names: ExpertNames::PROJ,
    })
}
