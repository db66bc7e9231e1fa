//! How often each expert was selected, per group and phase: read once, used by most metrics.

use moescope_trace::Phase;

use crate::data::{LayerData, RunData};
use crate::groups::Groups;

/// Selections of one layer.
#[derive(Clone, Debug)]
pub struct LayerCounts {
    experts: usize,
    /// `[G, 2, E]`
    selections: Vec<u32>,
    /// Tokens with routing, `[G, 2]`.
    tokens: Vec<u32>,
}

impl LayerCounts {
    /// Counts the selections of a layer in one pass over its ids.
    pub fn new(data: &RunData, layer: &LayerData, groups: &Groups) -> Self {
        let experts = layer.experts;
        let mut counts = Self {
            experts,
            selections: vec![0; groups.len() * 2 * experts],
            tokens: vec![0; groups.len() * 2],
        };
        for (index, sequence) in data.sequences.iter().enumerate() {
            let group = groups.of_sequence(index);
            for token in sequence.start..sequence.end {
                let cell = group * 2 + phase_index(data.tokens.phase[token]);
                let row = &mut counts.selections[cell * experts..(cell + 1) * experts];
                let mut routed = false;
                for &id in layer.experts_of(token) {
                    // NO_EXPERT is beyond every row.
                    if let Some(count) = row.get_mut(usize::from(id)) {
                        *count += 1;
                        routed = true;
                    }
                }
                counts.tokens[cell] += u32::from(routed);
            }
        }
        counts
    }

    /// Selections by the groups `units` in a phase (or both), `[U, E]`.
    pub fn rows(&self, units: &[u32], phase: Option<Phase>) -> Vec<f64> {
        let mut rows = vec![0.0; units.len() * self.experts];
        for (row, &group) in rows.chunks_exact_mut(self.experts.max(1)).zip(units) {
            for cell in cells(group, phase) {
                let selections = &self.selections[cell * self.experts..(cell + 1) * self.experts];
                for (sum, &count) in row.iter_mut().zip(selections) {
                    *sum += f64::from(count);
                }
            }
        }
        rows
    }

    /// Tokens with routing per unit, `[U]`.
    pub fn tokens(&self, units: &[u32], phase: Option<Phase>) -> Vec<f64> {
        let of = |&group: &u32| cells(group, phase).map(|cell| f64::from(self.tokens[cell])).sum();
        units.iter().map(of).collect()
    }
}

/// The cells of a group in a phase, or both.
pub(crate) fn cells(group: u32, phase: Option<Phase>) -> std::ops::Range<usize> {
    let first = group as usize * 2;
    match phase {
        None => first..first + 2,
        Some(phase) => first + phase_index(phase)..first + phase_index(phase) + 1,
    }
}

/// 0 for prefill, 1 for decode.
pub(crate) fn phase_index(phase: Phase) -> usize {
    usize::from(phase == Phase::Decode)
}

/// Column sums of `rows` `[U, W]`, `[W]`.
pub(crate) fn column_sums(rows: &[f64], width: usize) -> Vec<f64> {
    let mut sums = vec![0.0; width];
    for row in rows.chunks_exact(width.max(1)) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += value;
        }
    }
    sums
}
