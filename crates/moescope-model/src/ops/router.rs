//! From router logits to the experts of each token.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, activation};

use super::{cpu, gpu};

/// The choice score of an expert whose group was ruled out; far below any score.
pub(crate) const RULED_OUT: f32 = -1e30;

/// Added to sums of scores before dividing by them, as the reference does.
pub(crate) const TINY: f32 = 1e-20;

/// How experts are chosen and weighted.
///
/// A softmax over the logits of the chosen experts alone (Mixtral, gpt-oss) is
/// [`Scoring::Softmax`] with `renormalise`: dividing by the sum cancels the same factor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RouterRule {
    /// Experts per token, K.
    pub top_k: usize,
    /// From logits to scores.
    pub scoring: Scoring,
    /// Experts are chosen from a few groups only, where the family limits them.
    pub groups: Option<Groups>,
    /// Whether the chosen scores are divided by their sum (`norm_topk_prob`).
    pub renormalise: bool,
    /// Multiplies all weights (`routed_scaling_factor`).
    pub scale: f32,
}

/// What turns router logits into scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// Softmax over all experts.
    Softmax,
    /// The logistic function of each logit.
    Sigmoid,
}

/// Group-limited choice: experts lie in groups of E / `count` neighbours, and only those of the
/// `chosen` best groups can be chosen. A group is as good as the sum of its two best choice scores
/// (`DeepseekV3TopkRouter` of transformers 5.23.0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Groups (`n_group`); divides E, and leaves at least two experts in each.
    pub count: usize,
    /// Groups a token may choose from (`topk_group`); together they hold at least K experts.
    pub chosen: usize,
}

impl RouterRule {
    /// Softmax over all experts, the K most probable, weighted by their probabilities.
    pub const fn softmax(top_k: usize) -> Self {
        RouterRule {
            top_k,
            scoring: Scoring::Softmax,
            groups: None,
            renormalise: false,
            scale: 1.0,
        }
    }

    /// As [`RouterRule::softmax`], weights divided by their sum.
    pub const fn softmax_renormalised(top_k: usize) -> Self {
        RouterRule { renormalise: true, ..Self::softmax(top_k) }
    }
}

/// One number per expert that a router may have, f32.
#[derive(Clone, Copy, Debug, Default)]
pub struct PerExpert<'a> {
    /// `[E]`, added to the scores for the choice only, not for the weights
    /// (`e_score_correction_bias`).
    pub correction: Option<&'a Tensor<1>>,
    /// `[E]`, multiplies the weight of each expert after renormalisation.
    pub scale: Option<&'a Tensor<1>>,
}

/// What a router decided.
pub struct Choice {
    /// A distribution over all experts, `[T, E]`: the softmax, or sigmoid scores divided by their sum.
    pub probs: Tensor<2>,
    /// What the choice was made by, `[T, E]`, where that is not `probs`: sigmoid scores with their
    /// correction, below -1e29 for the experts of groups that were ruled out.
    pub scores: Option<Tensor<2>>,
    /// Chosen experts, the best first, `[T, K]`.
    pub experts: Tensor<2, Int>,
    /// Weights to apply to their outputs, `[T, K]`.
    pub weights: Tensor<2>,
}

/// Chooses experts for `logits [T, E]` (f32).
pub fn route(logits: Tensor<2>, rule: RouterRule, per_expert: PerExpert<'_>) -> Choice {
    route_to(logits, rule, per_expert, None)
}

/// As [`route`]; where experts are `forced` (`[T, K]`, i32, below E) they take the place of the chosen ones
/// and are weighted by the same rule.
pub(crate) fn route_to(
    logits: Tensor<2>,
    rule: RouterRule,
    per_expert: PerExpert<'_>,
    forced: Option<Tensor<2, Int>>,
) -> Choice {
    let [t, e] = logits.dims();
    let k = rule.top_k;
    if !cpu::is_cpu(&logits.device()) {
        return match gpu::RouterCall::fits(e) {
            true => on_gpu(logits, rule, per_expert, forced),
            false => compose(logits, rule, per_expert, forced),
        };
    }
    let forced = forced.map(cpu::host_ints);
    let logits = cpu::host(logits);
    let correction = per_expert.correction.cloned().map(cpu::host);
    let scale = per_expert.scale.cloned().map(cpu::host);
    let (correction, scale) = (correction.as_ref().map(cpu::f32s), scale.as_ref().map(cpu::f32s));
    let forced = forced.as_ref().map(cpu::i32s);
    let routed = cpu::router::route(cpu::f32s(&logits), e, rule, correction, scale, forced);
    Choice {
        probs: cpu::tensor(routed.probs, [t, e]),
        scores: routed.scores.map(|scores| cpu::tensor(scores, [t, e])),
        experts: cpu::int_tensor(routed.experts, [t, k]),
        weights: cpu::tensor(routed.weights, [t, k]),
    }
}

/// [`route_to`] in one kernel.
fn on_gpu(
    logits: Tensor<2>,
    rule: RouterRule,
    per_expert: PerExpert<'_>,
    forced: Option<Tensor<2, Int>>,
) -> Choice {
    let PerExpert { correction, scale } = per_expert;
    let keeps_scores = !rule.by_probs(correction.is_some());
    let call = gpu::RouterCall {
        top_k: rule.top_k,
        sigmoid: rule.scoring == Scoring::Sigmoid,
        groups: rule.groups,
        renormalise: rule.renormalise,
        factor: rule.scale,
        corrected: correction.is_some(),
        scaled: scale.is_some(),
        forced: forced.is_some(),
        keeps_scores,
    };
    let (probs, scores, experts, weights) =
        gpu::route_tokens(logits, correction, scale, forced, call);
    Choice { probs, scores: keeps_scores.then_some(scores), experts, weights }
}

/// [`route_to`] in Burn operations, for more experts than the kernel holds.
fn compose(
    logits: Tensor<2>,
    rule: RouterRule,
    per_expert: PerExpert<'_>,
    forced: Option<Tensor<2, Int>>,
) -> Choice {
    let [t, _] = logits.dims();
    let k = rule.top_k;
    let (scores, probs) = match rule.scoring {
        Scoring::Softmax => {
            let probs = activation::softmax(logits, 1);
            (probs.clone(), probs)
        }
        Scoring::Sigmoid => {
            let scores = activation::sigmoid(logits);
            (scores.clone(), scores.clone() / (scores.sum_dim(1) + TINY))
        }
    };
    let mut choice = scores.clone();
    if let Some(correction) = per_expert.correction {
        choice = choice + correction.clone().unsqueeze();
    }
    if let Some(groups) = rule.groups {
        choice = in_best_groups(choice, groups);
    }
    let (best, experts) = choice.clone().topk_with_indices(k, 1);
    let corrected = per_expert.correction.is_some();
    let best_are_weights = !corrected && forced.is_none();
    let experts = forced.unwrap_or(experts);
    let mut weights = if best_are_weights { best } else { scores.gather(1, experts.clone()) };
    if rule.renormalise {
        let sum = weights.clone().sum_dim(1) + TINY;
        weights = weights / sum;
    }
    if rule.scale != 1.0 {
        weights = weights * rule.scale;
    }
    if let Some(scale) = per_expert.scale {
        let flat = experts.clone().reshape([t * k]);
        weights = weights * scale.clone().select(0, flat).reshape([t, k]);
    }
    let by_probs = rule.by_probs(corrected);
    Choice { probs, scores: (!by_probs).then_some(choice), experts, weights }
}

impl RouterRule {
    /// Whether experts are chosen by the reported distribution itself.
    pub(crate) fn by_probs(&self, corrected: bool) -> bool {
        self.scoring == Scoring::Softmax && self.groups.is_none() && !corrected
    }
}

/// `choice [T, E]` with the experts of all but the best groups ruled out.
fn in_best_groups(choice: Tensor<2>, groups: Groups) -> Tensor<2> {
    let [t, e] = choice.dims();
    let Groups { count, chosen } = groups;
    let by_group = choice.reshape([t, count, e / count]);
    let merit = by_group.clone().topk(2, 2).sum_dim(2).reshape([t, count]);
    let (best, groups) = merit.clone().topk_with_indices(chosen, 1);
    let kept = merit.zeros_like().scatter(1, groups, best.ones_like(), IndexingUpdateOp::Add);
    let ruled_out = kept.lower_elem(0.5).reshape([t, count, 1]).expand([t, count, e / count]);
    by_group.mask_fill(ruled_out, RULED_OUT).reshape([t, e])
}

/// A decision as it is recorded, side by side in one tensor `[T, 2 K + 2]`: experts (exact as f32), their
/// weights, the entropy of the distribution in nats, and the margin by which the last chosen expert beat the
/// best one that was not.
///
/// The margin is p(k-th) - p(k+1-th), or the same of the choice scores where experts are not chosen by the
/// distribution: then it is in units of a corrected sigmoid score, and groups that were ruled out
/// don't count. With nothing left to beat it is the last chosen one's own score. Of forced experts it may
/// be negative.
///
/// `probs`, `scores`, `experts` and `weights` as [`route`] returns them.
pub fn trace(
    probs: Tensor<2>,
    scores: Option<Tensor<2>>,
    experts: Tensor<2, Int>,
    weights: Tensor<2>,
) -> Tensor<2> {
    if !cpu::is_cpu(&probs.device()) {
        return gpu::trace_rows(probs, scores, experts, weights);
    }
    let ([_, e], [t, k]) = (probs.dims(), experts.dims());
    let (probs, experts) = (cpu::host(probs), cpu::host_ints(experts));
    let (scores, weights) = (scores.map(cpu::host), cpu::host(weights));
    let (probs, experts) = (cpu::f32s(&probs), cpu::i32s(&experts));
    let scores = scores.as_ref().map_or(probs, cpu::f32s);
    let rows = cpu::router::trace(probs, scores, experts, cpu::f32s(&weights), e, k);
    cpu::tensor(rows, [t, 2 * k + 2])
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device};
    use proptest::prelude::*;

    use super::*;

    fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data_dtype(DType::F32).try_into_vec().unwrap()
    }

    fn ints(tensor: Tensor<2, Int>) -> Vec<usize> {
        let ints: Vec<i64> = tensor.into_data_dtype(DType::I64).try_into_vec().unwrap();
        ints.into_iter().map(|i| i as usize).collect()
    }

    fn vector(values: &[f32]) -> Tensor<1> {
        Tensor::from_floats(values, &Device::flex())
    }

    /// Experts of one token, the best first, their weights, entropy and margin: the rules one by one.
    struct Plain {
        experts: Vec<usize>,
        weights: Vec<f64>,
        entropy: f64,
        margin: f64,
        /// Least distance between scores whose order decides something.
        closest: f64,
    }

    fn plain(logits: &[f32], rule: RouterRule, correction: &[f32], scale: &[f32]) -> Plain {
        let scores: Vec<f64> = match rule.scoring {
            Scoring::Sigmoid => logits.iter().map(|&x| 1.0 / (1.0 + f64::from(-x).exp())).collect(),
            Scoring::Softmax => {
                let all: Vec<f64> = logits.iter().map(|&x| f64::from(x).exp()).collect();
                all.iter().map(|x| x / all.iter().sum::<f64>()).collect()
            }
        };
        let total: f64 = scores.iter().sum();
        let choice: Vec<f64> =
            scores.iter().zip(correction).map(|(s, c)| s + f64::from(*c)).collect();
        let falling = |values: &[f64]| {
            let mut order: Vec<usize> = (0..values.len()).collect();
            order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
            order
        };
        let Groups { count, chosen } = rule.groups.unwrap_or(Groups { count: 1, chosen: 1 });
        let size = choice.len() / count;
        let merit = |group: &[f64]| falling(group).iter().take(2).map(|&i| group[i]).sum::<f64>();
        let merits: Vec<f64> = choice.chunks(size).map(merit).collect();
        let by_merit = falling(&merits);
        let kept = &by_merit[..chosen];
        let allowed = falling(&choice).into_iter().filter(|e| kept.contains(&(e / size)));
        let allowed: Vec<usize> = allowed.collect();
        let experts = allowed[..rule.top_k].to_vec();
        let sum: f64 = experts.iter().map(|&e| scores[e]).sum();
        let norm = if rule.renormalise { sum } else { 1.0 };
        let weight = |&e: &usize| scores[e] / norm * f64::from(rule.scale * scale[e]);
        let next = allowed.get(rule.top_k).map_or(0.0, |&e| choice[e]);
        let entropy = |s: &f64| -s / total * (s / total).ln();
        let of_experts = allowed.windows(2).take(rule.top_k).map(|e| choice[e[0]] - choice[e[1]]);
        let of_groups = by_merit.get(chosen).map(|&first| merits[kept[chosen - 1]] - merits[first]);
        Plain {
            closest: of_experts.chain(of_groups).fold(f64::INFINITY, f64::min),
            weights: experts.iter().map(weight).collect(),
            entropy: scores.iter().map(entropy).sum(),
            margin: choice[experts[rule.top_k - 1]] - next,
            experts,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The kernel and the composition, for any rule, k = 1 and k = E among them.
        #[test]
        fn every_rule_chooses_as_written(
            (count, chosen) in (1usize..5).prop_flat_map(|n| (Just(n), 1..=n)),
            size in 2usize..6,
            part in 0.0f64..=1.0,
            sigmoid: bool,
            renormalise: bool,
            (corrected, scaled, low) in any::<(bool, bool, bool)>(),
            values in prop::collection::vec(-4.0f32..4.0, 3 * 20 + 40),
        ) {
            let (e, t) = (count * size, 3);
            let most = if count > 1 { chosen * size } else { e };
            let rule = RouterRule {
                top_k: 1 + (part * (most - 1) as f64).round() as usize,
                scoring: if sigmoid { Scoring::Sigmoid } else { Scoring::Softmax },
                groups: (count > 1).then_some(Groups { count, chosen }),
                renormalise,
                scale: 2.5,
            };
            // Equal values are apart from each other; others may come close by chance.
            let logits: Vec<f32> =
                values[..t * e].iter().enumerate().map(|(i, x)| x + (i % e) as f32 * 1e-3).collect();
            let per_expert = |on: bool, from: usize, factor: f32, other: f32| -> Vec<f32> {
                let own = values[from..from + e].iter().map(|x| x * factor);
                if on { own.collect() } else { vec![other; e] }
            };
            let mut correction = per_expert(corrected, 60, 0.1, 0.0);
            if corrected && low {
                // All choice scores below 0: what is ruled out must stay below them. (The reference fills
                // with minus infinity; versions that filled with 0 chose from groups they had ruled out.)
                correction.iter_mut().for_each(|c| *c -= 3.0);
            }
            let scale = per_expert(scaled, 80, 0.2, 1.0);
            let tensors = (vector(&correction), vector(&scale));
            let extra = PerExpert {
                correction: corrected.then_some(&tensors.0),
                scale: scaled.then_some(&tensors.1),
            };
            let input = vector(&logits).reshape([t, e]);
            for choice in [route(input.clone(), rule, extra), compose(input, rule, extra, None)] {
                let Choice { probs, scores, experts, weights } = choice;
                let rows = floats(trace(probs.clone(), scores, experts.clone(), weights.clone()));
                let sums = probs.sum_dim(1);
                prop_assert!(floats(sums).iter().all(|sum| (sum - 1.0).abs() < 1e-5));
                let (experts, weights) = (ints(experts), floats(weights));
                for (i, logits) in logits.chunks(e).enumerate() {
                    let want = plain(logits, rule, &correction, &scale);
                    // Nearer than f32 can tell apart: either order is right.
                    if want.closest < 2e-6 {
                        continue;
                    }
                    let k = rule.top_k;
                    prop_assert_eq!(&experts[i * k..][..k], &want.experts[..]);
                    for (got, want) in weights[i * k..].iter().zip(&want.weights) {
                        prop_assert!((f64::from(*got) - want).abs() < 1e-5, "{} {}", got, want);
                    }
                    let row = &rows[i * (2 * k + 2)..][..2 * k + 2];
                    let (ids, rest) = row.split_at(k);
                    prop_assert!(ids.iter().zip(&want.experts).all(|(id, e)| *id == *e as f32));
                    prop_assert_eq!(&rest[..k], &weights[i * k..][..k]);
                    prop_assert!((f64::from(rest[k]) - want.entropy).abs() < 1e-4);
                    prop_assert!((f64::from(rest[k + 1]) - want.margin).abs() < 1e-5);
                }
            }
        }
    }
}
