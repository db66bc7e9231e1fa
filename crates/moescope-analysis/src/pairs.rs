//! How often two experts of a layer run for the same token.

use std::ops::Range;

use crate::data::LayerData;
use crate::metric::Need;
use crate::parallel;
use crate::study::{Scope, Study};

/// Pairs of one layer, in each half of the sequences (see [`Study::halves`]).
pub(crate) struct LayerPairs {
    /// Index into the layers of the run.
    pub(crate) place: usize,
    /// `[E, E]`, symmetric; the diagonal holds c_e.
    pub(crate) halves: [Vec<u32>; 2],
}

impl LayerPairs {
    /// Of all layers that select more than one expert per token.
    pub(crate) fn all(study: &Study<'_>) -> Vec<Self> {
        let layers = &study.data.layers;
        let places: Vec<usize> = (0..layers.len())
            .filter(|&place| layers[place].top_k > 1 && layers[place].experts <= Need::MAX_EXPERTS)
            .collect();
        parallel::map(&places, |&place| {
            let halves = count(study, &layers[place]);
            Self { place, halves }
        })
    }

    /// Over all sequences, `[E, E]`.
    pub(crate) fn whole(&self) -> Vec<u32> {
        std::iter::zip(&self.halves[0], &self.halves[1]).map(|(a, b)| a + b).collect()
    }

    /// Over the tokens of a scope, `[E, E]`: counted anew where it is not the whole run.
    pub(crate) fn of_scope(&self, study: &Study<'_>, scope: &Scope) -> Vec<u32> {
        if scope.is_whole() {
            return self.whole();
        }
        let layer = &study.data.layers[self.place];
        let mut counts = vec![0u32; layer.experts * layer.experts];
        for (_, run) in study.stretches(scope) {
            add(layer, run, &mut counts);
        }
        make_symmetric(&mut counts, layer.experts);
        counts
    }
}

fn count(study: &Study<'_>, layer: &LayerData) -> [Vec<u32>; 2] {
    let experts = layer.experts;
    let mut halves = [vec![0u32; experts * experts], vec![0u32; experts * experts]];
    for (index, sequence) in study.data.sequences.iter().enumerate() {
        let group = study.groups.of_sequence(index);
        let counts = &mut halves[usize::from(study.groups.is_second_half(group))];
        add(layer, sequence.start..sequence.end, counts);
    }
    for counts in &mut halves {
        make_symmetric(counts, experts);
    }
    halves
}

/// Counts pairs by the rank of their experts: each in one of its two cells, and single experts in the
/// diagonal.
fn add(layer: &LayerData, tokens: Range<usize>, counts: &mut [u32]) {
    let experts = layer.experts;
    for token in tokens {
        let selected = layer.selected(token);
        for (rank, &expert) in selected.iter().enumerate() {
            let first = usize::from(expert) * experts;
            let row = &mut counts[first..first + experts];
            for &other in &selected[rank..] {
                row[usize::from(other)] += 1;
            }
        }
    }
}

/// The order of the two does not matter: both cells hold both.
fn make_symmetric(counts: &mut [u32], experts: usize) {
    for i in 0..experts {
        for j in 0..i {
            let both = counts[i * experts + j] + counts[j * experts + i];
            counts[i * experts + j] = both;
            counts[j * experts + i] = both;
        }
    }
}
