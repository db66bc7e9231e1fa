//! Tables between experts, for figures: co-activation, transitions, tokens and their experts.

use crate::metrics::{Specialists, uniform_lift};
use crate::occurrences::Which;
use crate::study::Study;

/// Tables of a run, those of the metrics that were computed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Structure {
    /// Pairs of experts in one token, by layer.
    pub coactivation: Vec<Coactivation>,
    /// Experts of neighbouring MoE layers, by the earlier layer.
    pub transitions: Vec<Transitions>,
    /// Tokens that belong to an expert, by layer.
    pub specialists: Vec<Specialists>,
    /// Experts in the order in which each ranking would prune them, by layer.
    pub pruning: Vec<Pruning>,
}

/// The experts of a layer over all tokens, the least salient first; empty for a ranking that takes what was
/// not recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pruning {
    /// Model layer.
    pub layer: u16,
    /// By REAP saliency, `[E]`.
    pub reap: Vec<u16>,
    /// By EAN, `[E]`.
    pub ean: Vec<u16>,
    /// By number of selections, `[E]`.
    pub frequency: Vec<u16>,
}

/// How often two experts of a layer ran for the same token.
#[derive(Clone, Debug, PartialEq)]
pub struct Coactivation {
    /// Model layer.
    pub layer: u16,
    /// Experts, E.
    pub experts: usize,
    /// Experts per token, k.
    pub top_k: usize,
    /// Tokens, T.
    pub tokens: u64,
    /// Tokens that selected both i and j, `[E, E]`, symmetric; the diagonal holds c_i.
    pub counts: Vec<u32>,
}

impl Coactivation {
    /// P(j given i); `None` where i was never selected.
    pub fn conditional(&self, i: usize, j: usize) -> Option<f64> {
        let [both, of_i, _] = self.counts_of(i, j);
        (of_i > 0.0).then(|| both / of_i)
    }

    /// P(j given i) / P(j); `None` where one of them was never selected.
    pub fn lift(&self, i: usize, j: usize) -> Option<f64> {
        let [both, of_i, of_j] = self.counts_of(i, j);
        (of_i > 0.0 && of_j > 0.0).then(|| both * self.tokens as f64 / (of_i * of_j))
    }

    /// Lift of every pair under uniform routing, a little below 1: `E (k-1) / (k (E-1))`.
    pub fn chance_lift(&self) -> f64 {
        uniform_lift(self.experts, self.top_k)
    }

    fn counts_of(&self, i: usize, j: usize) -> [f64; 3] {
        let at = |i: usize, j: usize| f64::from(self.counts[i * self.experts + j]);
        [at(i, j), at(i, i), at(j, j)]
    }
}

/// How often each expert was the first choice after each expert of the MoE layer before.
#[derive(Clone, Debug, PartialEq)]
pub struct Transitions {
    /// Model layer of the earlier experts.
    pub layer: u16,
    /// Model layer of the later experts.
    pub next: u16,
    /// Experts of the two layers, E and E'.
    pub experts: [usize; 2],
    /// Tokens whose first choice is i and then j, `[E, E']`.
    pub counts: Vec<u32>,
}

impl Transitions {
    /// P(j given i); `None` where i was never the first choice.
    pub fn conditional(&self, i: usize, j: usize) -> Option<f64> {
        let row = &self.counts[i * self.experts[1]..(i + 1) * self.experts[1]];
        let total: f64 = row.iter().map(|&count| f64::from(count)).sum();
        (total > 0.0).then(|| f64::from(row[j]) / total)
    }
}

impl Structure {
    /// What the metrics of a study left behind.
    pub(crate) fn of(study: &Study<'_>) -> Self {
        let layers = &study.data.layers;
        let coactivation = study.pairs_if_counted().iter().map(|pairs| {
            let layer = &layers[pairs.place];
            let tokens = study.counts()[pairs.place].tokens(&study.overall().units, None);
            Coactivation {
                layer: layer.layer,
                experts: layer.experts,
                top_k: layer.top_k,
                tokens: tokens.iter().sum::<f64>() as u64,
                counts: pairs.whole(),
            }
        });
        let transitions = study.transitions_if_counted().iter().map(|transitions| {
            let (from, to) = (&layers[transitions.place], &layers[transitions.place + 1]);
            Transitions {
                layer: from.layer,
                next: to.layer,
                experts: [from.experts, to.experts],
                counts: transitions.whole(),
            }
        });
        let of = |which, place: usize| {
            let vocabulary = study.vocabulary_if_counted(which).get(place);
            vocabulary.map_or_else(Vec::new, |layer| layer.specialists().to_vec())
        };
        let specialists = layers.iter().enumerate().map(|(place, layer)| Specialists {
            layer: layer.layer,
            input: of(Which::Input, place),
            next: of(Which::Next, place),
        });
        let pruning = study.saliency_if_counted().iter().map(|layer| {
            let [reap, ean, frequency] = [0, 1, 2].map(|at| layer.pruned[at].order.clone());
            Pruning { layer: layer.layer, reap, ean, frequency }
        });
        Self {
            pruning: pruning.collect(),
            coactivation: coactivation.collect(),
            transitions: transitions.collect(),
            specialists: specialists
                .filter(|layer| !(layer.input.is_empty() && layer.next.is_empty()))
                .collect(),
        }
    }
}
