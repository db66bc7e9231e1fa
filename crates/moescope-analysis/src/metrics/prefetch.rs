//! Next-layer prefetch: what is there in time, and what was brought for nothing.

use crate::metric::{Metric, Need};
use crate::parallel;
use crate::ratio::column_ratios;
use crate::row::{Index, MetricRow};
use crate::simulate::cache::Hits;
use crate::simulate::prefetch::Transitions;
use crate::study::Study;

use super::hit_rate::rows_of;

/// Rows: layer x size (p = 1..E), about the experts of that layer, foretold from the MoE layer before
/// it; none x size over all of them. Interval: bootstrap over sequences.
pub(crate) const PREFETCH_HIT_RATE: Metric = Metric {
    name: "prefetch_hit_rate",
    title: "Next-layer prefetch, hit rate",
    unit: "ratio",
    formula: "share of S_t(l) among the p experts f with the largest sum over e in S_t(l-1) of P(f given \
              e), P counted on one half of the sequences, t from the other",
    chance: "p/E",
    source: "Prefetch by transition counts while the layer before computes. At most 2^17 tokens, evenly \
             spread, are looked at per layer",
    needs: &[Need::Ids, Need::Layers],
    compute: |study| rows(study, &PREFETCH_HIT_RATE),
};

/// Rows as `prefetch_hit_rate`.
pub(crate) const PREFETCH_WASTED: Metric = Metric {
    name: "prefetch_wasted",
    title: "Next-layer prefetch, wasted transfers",
    unit: "ratio",
    formula: "share of the p experts brought that the token does not select: 1 - hits / p, without a cache",
    chance: "1 - k/E",
    source: "What a prefetch costs the link",
    needs: &[Need::Ids, Need::Layers],
    compute: |study| rows(study, &PREFETCH_WASTED),
};

/// Most tokens looked at per layer: at this many, their sampling noise is far below the difference
/// between texts.
const MAX_TOKENS: usize = 1 << 17;
/// Largest table of transitions, E * E' pairs.
const MAX_PAIRS: usize = 1 << 20;

/// Prefetches into one layer.
struct Prefetch {
    layer: Option<u16>,
    experts: usize,
    /// Needed experts over tokens looked at.
    top_k: f64,
    /// Hits by p and lookups, `[U, E + 1]`, of the groups of the second half.
    hits: Vec<f64>,
}

fn rows(study: &Study<'_>, metric: &Metric) -> Vec<MetricRow> {
    let places: Vec<usize> = (1..study.data.layers.len()).collect();
    let prefetches: Vec<Prefetch> =
        parallel::map(&places, |&place| simulate(study, place)).into_iter().flatten().collect();
    let mut all: Vec<&Prefetch> = prefetches.iter().collect();
    let whole = whole(&prefetches);
    all.extend(&whole);
    parallel::map(&all, |prefetch| of_prefetch(study, metric, prefetch)).concat()
}

fn of_prefetch(study: &Study<'_>, metric: &Metric, prefetch: &Prefetch) -> Vec<MetricRow> {
    let scope = &study.halves()[1];
    let wasted = metric.name == PREFETCH_WASTED.name;
    let row = study.row(metric.name, metric.unit, study.overall());
    let estimates = column_ratios(&prefetch.hits, prefetch.experts + 1, scope).unwrap_or_default();
    (1u32..)
        .zip(estimates)
        .map(|(brought, (value, interval))| {
            // Hits per lookup are k / p times the share of what is brought that is needed.
            let needed = prefetch.top_k / f64::from(brought);
            let chance = f64::from(brought) / prefetch.experts as f64;
            let of =
                |hit_rate: f64| if wasted { (1.0 - hit_rate * needed).max(0.0) } else { hit_rate };
            MetricRow {
                layer: prefetch.layer,
                index: Some(Index::Size(brought)),
                value: of(value),
                interval: interval.map(|(low, high)| match wasted {
                    true => (of(high), of(low)),
                    false => (low, high),
                }),
                chance: Some(of(chance)),
                ..row.clone()
            }
        })
        .collect()
}

/// The second half is foretold from the first. The first from the second too would not make a better
/// interval: both directions rise and fall with the same accidents, which resampling what is foretold
/// does not see. `None` where a half is empty or the tables would
/// be too large.
fn simulate(study: &Study<'_>, place: usize) -> Option<Prefetch> {
    let (from, to) = (&study.data.layers[place - 1], &study.data.layers[place]);
    let stride = study.data.len().div_ceil(MAX_TOKENS).max(1);
    let mut halves = [Vec::new(), Vec::new()];
    let mut group_of = Vec::new();
    for (index, sequence) in study.data.sequences.iter().enumerate() {
        let group = study.groups.of_sequence(index);
        let tokens = (sequence.start.next_multiple_of(stride)..sequence.end).step_by(stride);
        let half = &mut halves[usize::from(study.groups.is_second_half(group))];
        half.extend(tokens.clone());
        group_of.extend(tokens.map(|_| group));
    }
    if halves.iter().any(Vec::is_empty) || from.experts * to.experts > MAX_PAIRS {
        return None;
    }
    let mut hits = vec![Hits::new(to.experts, 1); study.groups.len()];
    let mut tokens = 0;
    let [learn, test] = halves;
    let transitions = Transitions::learn(from, to, learn);
    transitions.rank(from, to, test, |token, places| {
        // Multiples of the stride are numbered as the groups were written down.
        hits[group_of[token / stride]].add(places);
        tokens += 1;
    });
    let hits: Vec<Hits> =
        study.halves()[1].units.iter().map(|&group| hits[group as usize].clone()).collect();
    let lookups: u64 = hits.iter().map(Hits::requests).sum();
    Some(Prefetch {
        layer: Some(to.layer),
        experts: to.experts,
        top_k: lookups as f64 / f64::from(tokens.max(1)),
        hits: rows_of(&hits),
    })
}

/// All layers, each with equally many experts brought; `None` where layers differ in E.
fn whole(prefetches: &[Prefetch]) -> Option<Prefetch> {
    let first = prefetches.first()?;
    let mut hits = vec![0.0; first.hits.len()];
    for prefetch in prefetches {
        if prefetch.experts != first.experts {
            return None;
        }
        hits.iter_mut().zip(&prefetch.hits).for_each(|(sum, more)| *sum += more);
    }
    let top_k = prefetches.iter().map(|prefetch| prefetch.top_k).sum::<f64>();
    Some(Prefetch {
        layer: None,
        experts: first.experts,
        top_k: top_k / prefetches.len() as f64,
        hits,
    })
}
