//! Which expert follows which, from one MoE layer to the next.

use crate::data::LayerData;
use crate::metric::Need;
use crate::parallel;
use crate::study::{Scope, Study};

/// Transitions of the first choice (rank 0) from one layer to the next MoE layer, in each half of the
/// sequences.
pub(crate) struct LayerTransitions {
    /// Index of the earlier layer into the layers of the run; the later one follows it.
    pub(crate) place: usize,
    /// `[E, E']`: tokens whose first choice is e and then e'.
    pub(crate) halves: [Vec<u32>; 2],
}

/// Neighbouring layers whose experts are not too many for a table of their pairs, as places of the
/// earlier one.
pub(crate) fn neighbours(study: &Study<'_>) -> Vec<usize> {
    let layers = &study.data.layers;
    (1..layers.len())
        .map(|later| later - 1)
        .filter(|&place| layers[place].experts.max(layers[place + 1].experts) <= Need::MAX_EXPERTS)
        .collect()
}

impl LayerTransitions {
    pub(crate) fn all(study: &Study<'_>) -> Vec<Self> {
        parallel::map(&neighbours(study), |&place| {
            let (from, to) = (&study.data.layers[place], &study.data.layers[place + 1]);
            let mut halves = [0, 1].map(|_| vec![0u32; from.experts * to.experts]);
            for (index, sequence) in study.data.sequences.iter().enumerate() {
                let group = study.groups.of_sequence(index);
                let counts = &mut halves[usize::from(study.groups.is_second_half(group))];
                for token in sequence.start..sequence.end {
                    if let Some((i, j)) = first_choices(from, to, token) {
                        counts[i * to.experts + j] += 1;
                    }
                }
            }
            Self { place, halves }
        })
    }

    /// Over all sequences, `[E, E']`.
    pub(crate) fn whole(&self) -> Vec<u32> {
        std::iter::zip(&self.halves[0], &self.halves[1]).map(|(a, b)| a + b).collect()
    }

    /// Over the tokens of a scope, `[E, E']`: counted anew where it is not the whole run.
    pub(crate) fn of_scope(&self, study: &Study<'_>, scope: &Scope) -> Vec<u32> {
        if scope.is_whole() {
            return self.whole();
        }
        let (from, to) = (&study.data.layers[self.place], &study.data.layers[self.place + 1]);
        let mut counts = vec![0u32; from.experts * to.experts];
        for (_, run) in study.stretches(scope) {
            for token in run {
                if let Some((i, j)) = first_choices(from, to, token) {
                    counts[i * to.experts + j] += 1;
                }
            }
        }
        counts
    }
}

/// The first choices of a token in two layers.
#[inline]
pub(crate) fn first_choices(
    from: &LayerData,
    to: &LayerData,
    token: usize,
) -> Option<(usize, usize)> {
    let i = *from.selected(token).first()?;
    let j = *to.selected(token).first()?;
    Some((usize::from(i), usize::from(j)))
}
