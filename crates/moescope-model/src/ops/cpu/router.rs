//! Routing on the processor: scores, group limits, the k best and their weights.

use super::{
    lanes, math,
    rows::softmax,
    simd::{Kernel, RowKernel, by_rows, run},
};
use crate::ops::router::{Groups, RULED_OUT, RouterRule, Scoring, TINY};

/// Scores of every expert, the K best and their weights.
pub(crate) struct Routed {
    /// `[T, E]`, rows that add up to 1.
    pub(crate) probs: Vec<f32>,
    /// `[T, E]`, what the choice was made by where that is not `probs`.
    pub(crate) scores: Option<Vec<f32>>,
    /// `[T, K]`, the best first; equal ones by rising index.
    pub(crate) experts: Vec<i32>,
    /// `[T, K]`.
    pub(crate) weights: Vec<f32>,
}

/// Routes every row of `logits [T, E]`; `correction [E]` counts for the choice only, `expert_scale [E]`
/// multiplies weights. Where experts are `forced` (`[T, K]`) they are taken instead of the K best.
pub(crate) fn route(
    logits: &[f32],
    experts: usize,
    rule: RouterRule,
    correction: Option<&[f32]>,
    expert_scale: Option<&[f32]>,
    forced: Option<&[i32]>,
) -> Routed {
    let mut scores = logits.to_vec();
    by_rows(&mut scores, experts, &Score { width: experts, scoring: rule.scoring });
    let choice = (!rule.by_probs(correction.is_some())).then(|| {
        let mut choice = scores.clone();
        by_rows(
            &mut choice,
            experts,
            &Eligible { width: experts, groups: rule.groups, correction },
        );
        choice
    });
    // Also where they are not taken: forced routing should cost what routing costs.
    let best = choose(choice.as_deref().unwrap_or(&scores), experts, rule.top_k);
    let ids = forced.map_or(best, <[i32]>::to_vec);
    let weights = weigh(&scores, &ids, experts, rule, expert_scale);
    if rule.scoring == Scoring::Sigmoid {
        by_rows(&mut scores, experts, &Normalise(experts));
    }
    Routed { probs: scores, scores: choice, experts: ids, weights }
}

/// Logits to scores, in place.
struct Score {
    width: usize,
    scoring: Scoring,
}

impl RowKernel for Score {
    #[inline(always)]
    fn rows(&self, _: usize, rows: &mut [f32]) {
        match self.scoring {
            // A loop: what an iterator's method calls is not compiled with the kernel's instructions.
            Scoring::Softmax => {
                for row in rows.chunks_exact_mut(self.width) {
                    softmax(row);
                }
            }
            Scoring::Sigmoid => {
                for x in rows {
                    *x = math::sigmoid(*x);
                }
            }
        }
    }
}

/// Scores divided by their sum, in place.
struct Normalise(usize);

impl RowKernel for Normalise {
    #[inline(always)]
    fn rows(&self, _: usize, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.0) {
            let norm = 1.0 / (lanes::sum(row) + TINY);
            for x in row {
                *x *= norm;
            }
        }
    }
}

/// Scores to choice scores, in place: corrected, and ruled out where their group is.
struct Eligible<'a> {
    width: usize,
    groups: Option<Groups>,
    correction: Option<&'a [f32]>,
}

impl RowKernel for Eligible<'_> {
    #[inline(always)]
    fn rows(&self, _: usize, rows: &mut [f32]) {
        let mut merit = vec![0.0; self.groups.map_or(0, |groups| groups.count)];
        for row in rows.chunks_exact_mut(self.width) {
            if let Some(correction) = self.correction {
                for (x, c) in row.iter_mut().zip(correction) {
                    *x += c;
                }
            }
            if let Some(groups) = self.groups {
                rule_out(row, groups, &mut merit);
            }
        }
    }
}

/// Rules out all but the best groups of a row; `merit` has room for one number per group.
#[inline(always)]
fn rule_out(row: &mut [f32], groups: Groups, merit: &mut [f32]) {
    let size = row.len() / groups.count;
    for (merit, group) in merit.iter_mut().zip(row.chunks_exact(size)) {
        let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
        for &x in group {
            second = if x > first {
                first
            } else if x > second {
                x
            } else {
                second
            };
            first = if x > first { x } else { first };
        }
        *merit = first + second;
    }
    for (i, group) in row.chunks_exact_mut(size).enumerate() {
        // Its rank among all groups; of equal ones the first is better.
        let better = |(j, m): (usize, &f32)| *m > merit[i] || (*m == merit[i] && j < i);
        if merit.iter().enumerate().filter(|&other| better(other)).count() >= groups.chosen {
            group.fill(RULED_OUT);
        }
    }
}

/// The K best of each row of `choice [T, E]`.
fn choose(choice: &[f32], experts: usize, k: usize) -> Vec<i32> {
    let mut ids = Vec::with_capacity(choice.len() / experts * k);
    let mut best: Vec<(f32, i32)> = Vec::with_capacity(k + 1);
    for choice in choice.chunks_exact(experts) {
        best.clear();
        for (expert, &c) in choice.iter().enumerate() {
            // Insertion into a list of k: rows have few experts and most of them stop here.
            if best.len() == k && best[k - 1].0 >= c {
                continue;
            }
            let at = best.partition_point(|&(q, _)| q >= c);
            best.insert(at, (c, expert as i32));
            best.truncate(k);
        }
        ids.extend(best.iter().map(|&(_, expert)| expert));
    }
    ids
}

/// Weights of the experts `ids [T, K]` from `scores [T, E]`.
fn weigh(
    scores: &[f32],
    ids: &[i32],
    experts: usize,
    rule: RouterRule,
    expert_scale: Option<&[f32]>,
) -> Vec<f32> {
    let mut weights = Vec::with_capacity(ids.len());
    for (scores, ids) in scores.chunks_exact(experts).zip(ids.chunks_exact(rule.top_k)) {
        let sum: f32 = ids.iter().map(|&expert| scores[expert as usize]).sum();
        let norm = if rule.renormalise { rule.scale / (sum + TINY) } else { rule.scale };
        for &expert in ids {
            let scale = expert_scale.map_or(1.0, |s| s[expert as usize]);
            weights.push(scores[expert as usize] * norm * scale);
        }
    }
    weights
}

/// Rows as [`crate::ops::router::trace`] describes them, for `probs` and `scores` `[T, E]`, `experts` and
/// `weights` `[T, K]`.
pub(crate) fn trace(
    probs: &[f32],
    scores: &[f32],
    experts: &[i32],
    weights: &[f32],
    e: usize,
    k: usize,
) -> Vec<f32> {
    run(Trace { probs, scores, experts, weights, e, k })
}

struct Trace<'a> {
    probs: &'a [f32],
    scores: &'a [f32],
    experts: &'a [i32],
    weights: &'a [f32],
    e: usize,
    k: usize,
}

impl Kernel for Trace<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run(self) -> Vec<f32> {
        let Trace { probs, scores, experts, weights, e, k } = self;
        let mut out = Vec::with_capacity(probs.len() / e * (2 * k + 2));
        let mut terms = vec![0.0; e];
        let decisions = probs.chunks_exact(e).zip(scores.chunks_exact(e));
        let applied = experts.chunks_exact(k).zip(weights.chunks_exact(k));
        for ((probs, scores), (chosen, weights)) in decisions.zip(applied) {
            out.extend(chosen.iter().map(|&expert| expert as f32));
            out.extend_from_slice(weights);
            for (term, &p) in terms.iter_mut().zip(probs) {
                // The clamp keeps 0 ln 0 at 0.
                *term = -p * math::ln(if p > 1e-30 { p } else { 1e-30 });
            }
            out.push(lanes::sum(&terms));
            terms.copy_from_slice(scores);
            for &c in chosen {
                terms[c as usize] = RULED_OUT;
            }
            let best = lanes::maximum(&terms);
            let best = if best > RULED_OUT / 10.0 { best } else { 0.0 };
            out.push(scores[chosen[k - 1] as usize] - best);
        }
        out
    }
}
