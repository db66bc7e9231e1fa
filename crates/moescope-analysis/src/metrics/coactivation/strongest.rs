//! The pairs that stand out, chosen on one half of the sequences and measured on the other.

use super::{COACTIVATION, COACTIVATION_LIFT};
use crate::counts::LayerCounts;
use crate::data::LayerData;
use crate::parallel;
use crate::row::{Index, MetricRow};
use crate::study::{Scope, Study};

/// Pairs reported per layer.
const REPORTED: usize = 10;

pub(super) fn conditional_rows(study: &Study<'_>) -> Vec<MetricRow> {
    rows(study, |layer, pair, measured, resampled, scope| {
        let chance = (layer.top_k as f64 - 1.0) / (layer.experts as f64 - 1.0);
        let row = study.row(COACTIVATION.name, COACTIVATION.unit, study.overall());
        [(pair.0, pair.1, GIVEN_I), (pair.1, pair.0, GIVEN_J)]
            .into_iter()
            .filter_map(|(i, j, given)| {
                let share = |sums: &Sums| sums[BOTH] / sums[given];
                let value = share(measured);
                let mut values: Vec<f64> = resampled.iter().map(share).collect();
                value.is_finite().then(|| MetricRow {
                    layer: Some(layer.layer),
                    index: Some(Index::Pair(i, j)),
                    value,
                    interval: scope.resamples.interval(value, &mut values, (0.0, 1.0)),
                    chance: Some(chance),
                    ..row.clone()
                })
            })
            .collect()
    })
}

pub(super) fn lift_rows(study: &Study<'_>) -> Vec<MetricRow> {
    rows(study, |layer, pair, measured, resampled, scope| {
        let lift = |sums: &Sums| sums[BOTH] * sums[TOKENS] / (sums[GIVEN_I] * sums[GIVEN_J]);
        let value = lift(measured);
        let mut values: Vec<f64> = resampled.iter().map(lift).collect();
        let row = MetricRow {
            layer: Some(layer.layer),
            index: Some(Index::Pair(pair.0, pair.1)),
            value,
            interval: scope.resamples.interval(value, &mut values, (0.0, f64::MAX)),
            chance: Some(uniform_lift(layer.experts, layer.top_k)),
            ..study.row(COACTIVATION_LIFT.name, COACTIVATION_LIFT.unit, study.overall())
        };
        value.is_finite().then_some(row).into_iter().collect()
    })
}

/// Lift of any pair under uniform routing: `E (k-1) / (k (E-1))`.
pub(crate) fn uniform_lift(experts: usize, top_k: usize) -> f64 {
    let (experts, top_k) = (experts as f64, top_k as f64);
    experts * (top_k - 1.0) / (top_k * (experts - 1.0))
}

/// Tokens with both experts, with either, and in all.
type Sums = [f64; 4];

const BOTH: usize = 0;
const GIVEN_I: usize = 1;
const GIVEN_J: usize = 2;
const TOKENS: usize = 3;

/// Rows of the strongest pairs of every layer, strongest first: `make(layer, pair, measured sums,
/// resampled sums, measuring half)`.
fn rows(
    study: &Study<'_>,
    make: impl Fn(&LayerData, (u16, u16), &Sums, &[Sums], &Scope) -> Vec<MetricRow> + Sync,
) -> Vec<MetricRow> {
    let counts = study.counts();
    parallel::map(study.pairs(), |pairs| {
        let layer = &study.data.layers[pairs.place];
        let chosen = choose(layer, &pairs.halves[0]);
        let measuring = &study.halves()[1];
        let units = sums(study, layer, &counts[pairs.place], &chosen, measuring);
        let resamples = &measuring.resamples;
        let mut resampled = vec![Vec::with_capacity(resamples.len()); chosen.len()];
        resamples.each_sum(resamples.len(), &units, 4 * chosen.len(), |_, sums| {
            for (values, sums) in resampled.iter_mut().zip(sums.as_chunks::<4>().0) {
                values.push(*sums);
            }
        });
        let measured = crate::counts::column_sums(&units, 4 * chosen.len());
        chosen
            .iter()
            .zip(measured.as_chunks::<4>().0)
            .zip(&resampled)
            .flat_map(|((&pair, measured), resampled)| {
                make(layer, pair, measured, resampled, measuring)
            })
            .collect::<Vec<_>>()
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

/// [`Sums`] of each pair in each group of a scope, `[U, 4 pairs]`.
fn sums(
    study: &Study<'_>,
    layer: &LayerData,
    counts: &LayerCounts,
    chosen: &[(u16, u16)],
    scope: &Scope,
) -> Vec<f64> {
    let experts = layer.experts;
    let width = 4 * chosen.len();
    // Place of each chosen pair plus one.
    let mut place = vec![0u8; experts * experts];
    for (at, &(i, j)) in (1..).zip(chosen) {
        place[usize::from(i) * experts + usize::from(j)] = at;
        place[usize::from(j) * experts + usize::from(i)] = at;
    }
    let mut both = vec![[0u32; REPORTED + 1]; study.groups.len()];
    for (index, sequence) in study.data.sequences.iter().enumerate() {
        let group = study.groups.of_sequence(index);
        if !study.groups.is_second_half(group) {
            continue;
        }
        let both = &mut both[group];
        for token in sequence.start..sequence.end {
            let selected = layer.selected(token);
            for (rank, &expert) in selected.iter().enumerate() {
                let row = &place[usize::from(expert) * experts..][..experts];
                for &other in &selected[rank + 1..] {
                    both[usize::from(row[usize::from(other)])] += 1;
                }
            }
        }
    }
    let mut units = vec![0.0; scope.units.len() * width];
    if width == 0 {
        return units;
    }
    let selections = counts.rows(&scope.units, None);
    let tokens = counts.tokens(&scope.units, None);
    for (at, unit) in units.chunks_exact_mut(width).enumerate() {
        let both = &both[scope.units[at] as usize];
        let selections = &selections[at * experts..(at + 1) * experts];
        for ((to, &(i, j)), &both) in unit.chunks_exact_mut(4).zip(chosen).zip(&both[1..]) {
            to[BOTH] = f64::from(both);
            to[GIVEN_I] = selections[usize::from(i)];
            to[GIVEN_J] = selections[usize::from(j)];
            to[TOKENS] = tokens[at];
        }
    }
    units
}
