//! The pairs that stand out, chosen on one half of the sequences and measured on the other.

use crate::counts::{column_sums, phase_index};
use crate::data::LayerData;
use crate::parallel;
use crate::row::MetricRow;
use crate::runs::phase_runs;
use crate::study::{Scope, Study};

/// Pairs reported per layer.
const REPORTED: usize = 10;

/// Lift of any pair under uniform routing: `E (k-1) / (k (E-1))`.
pub(crate) fn uniform_lift(experts: usize, top_k: usize) -> f64 {
    let (experts, top_k) = (experts as f64, top_k as f64);
    experts * (top_k - 1.0) / (top_k * (experts - 1.0))
}

/// Tokens with both experts, with either, and in all.
pub(crate) type Sums = [f64; 4];

pub(crate) const BOTH: usize = 0;
pub(crate) const GIVEN_I: usize = 1;
pub(crate) const GIVEN_J: usize = 2;
pub(crate) const TOKENS: usize = 3;

/// The strongest pairs of a layer, and how often they were selected together in the half that measures.
pub(crate) struct StrongestPairs {
    /// Index into the layers of the run.
    place: usize,
    /// Strongest first.
    chosen: Vec<(u16, u16)>,
    /// Tokens with both experts of each chosen pair, by group and phase, `[G][2]`.
    both: Vec<[[u32; REPORTED]; 2]>,
}

impl StrongestPairs {
    /// Of every layer whose pairs were counted.
    pub(crate) fn all(study: &Study<'_>) -> Vec<Self> {
        parallel::map(study.pairs(), |pairs| {
            let layer = &study.data.layers[pairs.place];
            let chosen = choose(layer, &pairs.halves[0]);
            let both = together(study, layer, &chosen);
            Self { place: pairs.place, chosen, both }
        })
    }

    /// [`Sums`] of each pair in each group of a scope, `[U, 4 pairs]`.
    fn sums(&self, study: &Study<'_>, scope: &Scope) -> Vec<f64> {
        let (experts, counts) =
            (study.data.layers[self.place].experts, &study.counts()[self.place]);
        let width = 4 * self.chosen.len();
        let mut units = vec![0.0; scope.units.len() * width];
        if width == 0 {
            return units;
        }
        let selections = counts.rows(&scope.units, scope.phase);
        let tokens = counts.tokens(&scope.units, scope.phase);
        for (at, unit) in units.chunks_exact_mut(width).enumerate() {
            let both = &self.both[scope.units[at] as usize];
            let selections = &selections[at * experts..(at + 1) * experts];
            for (pair, (to, &(i, j))) in unit.chunks_exact_mut(4).zip(&self.chosen).enumerate() {
                to[BOTH] = match scope.phase {
                    None => f64::from(both[0][pair] + both[1][pair]),
                    Some(phase) => f64::from(both[phase_index(phase)][pair]),
                };
                to[GIVEN_I] = selections[usize::from(i)];
                to[GIVEN_J] = selections[usize::from(j)];
                to[TOKENS] = tokens[at];
            }
        }
        units
    }
}

/// Rows of the strongest pairs of every layer in every scope of the half that measures, strongest
/// first: `make(layer, pair, measured sums, resampled sums, scope)`.
pub(crate) fn rows(
    study: &Study<'_>,
    make: impl Fn(&LayerData, (u16, u16), &Sums, &[Sums], &Scope) -> Vec<MetricRow> + Sync,
) -> Vec<MetricRow> {
    parallel::map(study.strongest_pairs(), |strongest| {
        let layer = &study.data.layers[strongest.place];
        let chosen = &strongest.chosen;
        let mut rows = Vec::new();
        for scope in study.measuring() {
            let units = strongest.sums(study, scope);
            let resamples = &scope.resamples;
            let mut resampled = vec![Vec::with_capacity(resamples.len()); chosen.len()];
            resamples.each_sum(resamples.len(), &units, 4 * chosen.len(), |_, sums| {
                for (values, sums) in resampled.iter_mut().zip(sums.as_chunks::<4>().0) {
                    values.push(*sums);
                }
            });
            let measured = column_sums(&units, 4 * chosen.len());
            for ((&pair, measured), resampled) in
                chosen.iter().zip(measured.as_chunks::<4>().0).zip(&resampled)
            {
                rows.extend(make(layer, pair, measured, resampled, scope));
            }
        }
        rows
    })
    .concat()
}

/// The pairs (i < j) furthest above what popularity and uniform choice explain, in standard deviations.
fn choose(layer: &LayerData, counts: &[u32]) -> Vec<(u16, u16)> {
    let experts = layer.experts;
    let single: Vec<f64> = (0..experts).map(|i| f64::from(counts[i * experts + i])).collect();
    let tokens = single.iter().sum::<f64>() / layer.top_k as f64;
    let lift = uniform_lift(experts, layer.top_k);
    let mut pairs = Vec::new();
    for i in 0..experts {
        for j in i + 1..experts {
            let count = f64::from(counts[i * experts + j]);
            let expected = lift * single[i] * single[j] / tokens;
            if count > 0.0 {
                // Below one expected, a single token would do.
                pairs.push(((count - expected) / expected.max(1.0).sqrt(), (i as u16, j as u16)));
            }
        }
    }
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    pairs.truncate(REPORTED);
    pairs.into_iter().map(|(_, pair)| pair).collect()
}

/// Tokens with both experts of each chosen pair in the half that measures, by group and phase.
fn together(
    study: &Study<'_>,
    layer: &LayerData,
    chosen: &[(u16, u16)],
) -> Vec<[[u32; REPORTED]; 2]> {
    let experts = layer.experts;
    // Place of each chosen pair plus one.
    let mut place = vec![0u8; experts * experts];
    for (at, &(i, j)) in (1..).zip(chosen) {
        place[usize::from(i) * experts + usize::from(j)] = at;
        place[usize::from(j) * experts + usize::from(i)] = at;
    }
    let mut both = vec![[[0u32; REPORTED]; 2]; study.groups.len()];
    for (index, sequence) in study.data.sequences.iter().enumerate() {
        let group = study.groups.of_sequence(index);
        if !study.groups.is_second_half(group) {
            continue;
        }
        for (phase, run) in phase_runs(study.data, sequence) {
            // The first is of pairs that were not chosen.
            let mut counts = [0u32; REPORTED + 1];
            for token in run {
                let selected = layer.selected(token);
                for (rank, &expert) in selected.iter().enumerate() {
                    let row = &place[usize::from(expert) * experts..][..experts];
                    for &other in &selected[rank + 1..] {
                        counts[usize::from(row[usize::from(other)])] += 1;
                    }
                }
            }
            for (sum, count) in both[group][phase_index(phase)].iter_mut().zip(&counts[1..]) {
                *sum += count;
            }
        }
    }
    both
}
