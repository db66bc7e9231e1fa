//! How well the experts of one layer foretell those of the next MoE layer.

use moescope_trace::Phase;

use crate::chance::sets;
use crate::data::LayerData;
use crate::metric::{Metric, Need};
use crate::parallel;
use crate::ratio::{Estimate, RatioTable};
use crate::row::MetricRow;
use crate::simd::{self, Kernel};
use crate::study::{Scope, Study};
use crate::transitions::neighbours;

/// Rows: layer, about predicting the next MoE layer from it; layer x phase; layer x domain. Interval:
/// bootstrap over sequences.
pub(crate) const NEXT_LAYER_RECALL: Metric = Metric {
    name: "next_layer_recall",
    title: "Next-layer recall",
    unit: "ratio",
    formula: "mean over tokens of |F_t ∩ S_t(l+1)| / k, F_t the k experts j with the largest sum over i in \
              S_t(l) of P(j given i); P counted on one half of the sequences, t from the other",
    chance: "k/E",
    source: "Prediction by transition counts, as prefetchers of MoE experts do, on text they have not seen. \
             At most 2^18 tokens, evenly spread, are looked at per layer",
    needs: &[Need::Ids],
    compute: |study| rows(study, &NEXT_LAYER_RECALL, 0, |to| to.top_k as f64 / to.experts as f64),
};

/// Rows as `next_layer_recall`.
pub(crate) const NEXT_LAYER_EXACT: Metric = Metric {
    name: "next_layer_exact",
    title: "Next layer predicted in full",
    unit: "ratio",
    formula: "share of tokens with F_t = S_t(l+1), F_t as in `next_layer_recall`",
    chance: "1 / (number of sets of k out of E)",
    source: "A prefetch that needs nothing more",
    needs: &[Need::Ids],
    compute: |study| rows(study, &NEXT_LAYER_EXACT, 1, |to| 1.0 / sets(to.experts, to.top_k)),
};

/// Most tokens looked at per layer: at this many, their sampling noise is far below the difference
/// between texts.
const MAX_TOKENS: usize = 1 << 18;

/// Recall and exact sets of each pair of neighbouring layers, in every scope.
pub(crate) struct Predicted {
    place: usize,
    /// `[scopes][2]`
    estimates: Vec<Vec<Option<Estimate>>>,
}

impl Predicted {
    pub(crate) fn all(study: &Study<'_>) -> Vec<Self> {
        parallel::map(&neighbours(study), |&place| {
            let table = predict(study, &study.data.layers[place], &study.data.layers[place + 1]);
            let of_scope = |scope: &Scope| table.ratios(scope, (0.0, 1.0));
            Self { place, estimates: study.scopes().iter().map(of_scope).collect() }
        })
    }
}

fn rows(
    study: &Study<'_>,
    metric: &Metric,
    column: usize,
    chance: fn(&LayerData) -> f64,
) -> Vec<MetricRow> {
    let mut rows = Vec::new();
    for predicted in study.predicted() {
        let from = &study.data.layers[predicted.place];
        let to = &study.data.layers[predicted.place + 1];
        for (scope, estimates) in study.scopes().iter().zip(&predicted.estimates) {
            if let Some((value, interval)) = estimates[column] {
                rows.push(MetricRow {
                    layer: Some(from.layer),
                    value,
                    interval,
                    chance: Some(chance(to)),
                    ..study.row(metric.name, metric.unit, scope)
                });
            }
        }
    }
    rows
}

/// Recall and exact sets of the tokens of the second half, predicted from the transitions of the first.
///
/// Predicting the first half from the second too would use all sequences, but not for a better
/// interval: both directions rise and fall with the same accidents, which resampling what is predicted
/// does not see.
fn predict(study: &Study<'_>, from: &LayerData, to: &LayerData) -> RatioTable {
    let mut table = RatioTable::new(study.groups.len(), 2);
    let stride = study.data.len().div_ceil(MAX_TOKENS).max(1);
    // (token, group) of each half.
    let mut halves = [Vec::new(), Vec::new()];
    for (index, sequence) in study.data.sequences.iter().enumerate() {
        let group = study.groups.of_sequence(index);
        let half = &mut halves[usize::from(study.groups.is_second_half(group))];
        let tokens = sequence.start.next_multiple_of(stride)..sequence.end;
        half.extend(tokens.step_by(stride).map(|token| (token, group)));
    }
    let [learn, test] = halves;
    if learn.is_empty() || test.is_empty() {
        return table;
    }
    let follows = conditional(from, to, &learn);
    simd::run(Test { study, from, to, tokens: &test, follows: &follows, table: &mut table });
    table
}

/// P(j in the next layer given i in this one), `[E, E']`.
fn conditional(from: &LayerData, to: &LayerData, tokens: &[(usize, usize)]) -> Vec<f32> {
    let mut counts = vec![0u32; from.experts * to.experts];
    let mut times = vec![0u32; from.experts];
    for &(token, _) in tokens {
        for &i in from.selected(token) {
            let i = usize::from(i);
            times[i] += 1;
            let row = &mut counts[i * to.experts..(i + 1) * to.experts];
            for &j in to.selected(token) {
                row[usize::from(j)] += 1;
            }
        }
    }
    let share = |(at, &count): (usize, &u32)| {
        let times = times[at / to.experts].max(1);
        count as f32 / times as f32
    };
    counts.iter().enumerate().map(share).collect()
}

/// Predicts tokens from transitions.
struct Test<'s, 'a> {
    study: &'s Study<'a>,
    from: &'s LayerData,
    to: &'s LayerData,
    tokens: &'s [(usize, usize)],
    follows: &'s [f32],
    table: &'s mut RatioTable,
}

impl Kernel for Test<'_, '_> {
    #[inline(always)]
    fn run(self) {
        let Self { study, from, to, tokens, follows, table } = self;
        let (experts, top_k) = (to.experts, to.top_k);
        let mut scores = vec![0.0f32; experts];
        let mut best = Vec::with_capacity(top_k + 1);
        for &(token, group) in tokens {
            let (given, selected) = (from.selected(token), to.selected(token));
            if given.is_empty() || selected.is_empty() {
                continue;
            }
            scores.fill(0.0);
            for &i in given {
                let row = &follows[usize::from(i) * experts..][..experts];
                for (score, share) in scores.iter_mut().zip(row) {
                    *score += share;
                }
            }
            largest(&scores, top_k, &mut best);
            let found = selected.iter().filter(|&&id| best.iter().any(|b| b.1 == id)).count();
            let phase: Phase = study.data.tokens.phase[token];
            table.add(group, phase, 0, found as f64, selected.len() as f64);
            table.add(group, phase, 1, f64::from(u8::from(found == selected.len())), 1.0);
        }
    }
}

/// The `count` largest scores with their experts, largest first; of equal ones the lower expert.
#[inline(always)]
fn largest(scores: &[f32], count: usize, best: &mut Vec<(f32, u16)>) {
    best.clear();
    let mut least = f32::NEG_INFINITY;
    for (expert, &score) in (0u16..).zip(scores) {
        if score <= least {
            continue;
        }
        let at = best.iter().position(|&(other, _)| score > other).unwrap_or(best.len());
        best.insert(at, (score, expert));
        if best.len() > count {
            best.pop();
        }
        if best.len() == count {
            least = best.last().map_or(f32::NEG_INFINITY, |last| last.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_in_order() {
        let mut best = Vec::new();
        largest(&[1.0, 5.0, 3.0, 5.0, 0.0], 3, &mut best);
        assert_eq!(best, [(5.0, 1), (5.0, 3), (3.0, 2)]);
        largest(&[1.0, 1.0, 1.0], 2, &mut best);
        assert_eq!(best, [(1.0, 0), (1.0, 1)]);
        largest(&[0.5], 1, &mut best);
        assert_eq!(best, [(0.5, 0)]);
    }
}
