//! Hits of an expert cache, by policy and size.

use std::collections::HashMap;

use moescope_trace::Phase;

use crate::counts::column_sums;
use crate::data::Sequence;
use crate::metric::{Metric, Need};
use crate::parallel;
use crate::ratio::{Estimate, column_ratios};
use crate::row::{Index, MetricRow};
use crate::simulate::cache::{
    Belady, ColdStart, Fixed, Future, Hits, LayerRequests, Lfu, Lru, Start, uniform_belady,
};
use crate::study::{Scope, Study};

/// Rows of each policy: layer x size (1..E), and none x size: all layers with that many experts each.
/// Over whole sequences and, where there are generated tokens, over those alone. Interval: bootstrap
/// over sequences.
pub(crate) const HIT_RATE_LRU: Metric = Metric {
    name: "hit_rate_lru",
    title: "Cache hit rate, LRU",
    unit: "ratio",
    formula: "hits / lookups of a cache of m experts per layer that keeps the ones used last; the k of a \
              token are looked up before any is inserted; empty at the start of each sequence (by \
              phase: of the phase)",
    chance: "mean of min(m, D_t) / E, D_t the distinct experts of t random tokens: m/E but for the start",
    source: "All sizes from one pass over stack distances: Mattson et al. 1970",
    needs: &[Need::Ids],
    compute: |study| rows(study, &HIT_RATE_LRU, Policy::Lru),
};

pub(crate) const HIT_RATE_LRU_WARM: Metric = Metric {
    name: "hit_rate_lru_warm",
    title: "Cache hit rate, LRU warmed by the prompt",
    unit: "ratio",
    formula: "hit_rate_lru over the generated tokens, with the cache as the prompt left it",
    chance: "as hit_rate_lru, after as many tokens of prompt",
    source: "What a prompt leaves behind serves the text that follows it",
    needs: &[Need::Ids, Need::Decode],
    compute: |study| rows(study, &HIT_RATE_LRU_WARM, Policy::LruWarm),
};

pub(crate) const HIT_RATE_LFU: Metric = Metric {
    name: "hit_rate_lfu",
    title: "Cache hit rate, LFU",
    unit: "ratio",
    formula: "as hit_rate_lru, of a cache that keeps the ones used most often since it was empty; of \
              equal ones the more recent",
    chance: "as hit_rate_lru",
    source: "LFU with counts of all experts, a stack algorithm: Mattson et al. 1970",
    needs: &[Need::Ids],
    compute: |study| rows(study, &HIT_RATE_LFU, Policy::Lfu),
};

pub(crate) const HIT_RATE_STATIC: Metric = Metric {
    name: "hit_rate_static",
    title: "Cache hit rate, static",
    unit: "ratio",
    formula: "selections of the m experts most used in the other half of the sequences / selections",
    chance: "m/E",
    source: "Hot experts pinned before anything runs. Chosen and measured in both directions, so that no \
             sequence is measured with a choice it had a part in",
    needs: &[Need::Ids],
    compute: |study| rows(study, &HIT_RATE_STATIC, Policy::Static),
};

pub(crate) const HIT_RATE_BELADY: Metric = Metric {
    name: "hit_rate_belady",
    title: "Cache hit rate, bound",
    unit: "ratio",
    formula: "as hit_rate_lru, of a cache that keeps the ones needed again soonest and begins with the \
              ones needed first: no cache that loads on demand has more hits, preloaded or not",
    chance: "the same cache under simulated uniform routing: it knows the future there too",
    source: "Belady 1966; one pass over the stack of next uses",
    needs: &[Need::Ids],
    compute: |study| rows(study, &HIT_RATE_BELADY, Policy::Belady),
};

/// How a cache chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Lru,
    LruWarm,
    Lfu,
    Static,
    Belady,
}

/// A stretch of a sequence that is simulated.
pub(super) struct Span {
    pub(super) group: u32,
    /// First token.
    pub(super) start: usize,
    /// First token that is counted.
    pub(super) counted: usize,
    /// One past the last token.
    pub(super) end: usize,
}

/// The scopes of hit rates: the whole run, and what was generated where there is both.
pub(super) fn scopes<'s>(study: &'s Study<'_>) -> impl Iterator<Item = &'s Scope> {
    study.phases().filter(|scope| scope.phase != Some(Phase::Prefill))
}

/// The stretches of a scope; `warm` ones begin with the prompt, which is not counted.
pub(super) fn spans(study: &Study<'_>, scope: &Scope, warm: bool) -> Vec<Span> {
    let generated = |sequence: &Sequence| {
        let phases = &study.data.tokens.phase[sequence.start..sequence.end];
        let prompt = phases.iter().position(|&phase| phase == Phase::Decode);
        sequence.start + prompt.unwrap_or(phases.len())
    };
    let sequences = study.data.sequences.iter().enumerate();
    sequences
        .map(|(index, sequence)| {
            let counted = match scope.phase {
                Some(_) => generated(sequence),
                None => sequence.start,
            };
            Span {
                group: study.groups.of_sequence(index) as u32,
                start: if warm { sequence.start } else { counted },
                counted,
                end: sequence.end,
            }
        })
        .filter(|span| span.counted < span.end)
        .collect()
}

fn rows(study: &Study<'_>, metric: &Metric, policy: Policy) -> Vec<MetricRow> {
    let warm = policy == Policy::LruWarm;
    let mut rows = Vec::new();
    for scope in scopes(study).filter(|scope| scope.phase.is_some() || !warm) {
        let spans = spans(study, scope, warm);
        let places: Vec<usize> = (0..study.data.layers.len()).collect();
        let chances = chances(study, policy, &spans);
        let curves = parallel::map(&places, |&place| {
            let layer = &study.data.layers[place];
            let chance = chances.get(&(layer.experts, layer.top_k));
            Curve::of(study, policy, place, &spans, chance.map_or(&[], Vec::as_slice))
        });
        let row = study.row(metric.name, metric.unit, scope);
        let of_curve = |(curve, layer): &(&Curve, Option<u16>)| {
            let width = curve.sizes + 1;
            let estimates = column_ratios(&units(&curve.rows, width, scope), width, scope);
            let mut estimates = estimates.unwrap_or_default();
            if policy == Policy::Static {
                one_way(study, scope, &mut estimates, &curve.rows);
            }
            let lookups = curve.lookups();
            let sizes = (1..).zip(estimates.into_iter().zip(&curve.chance));
            sizes
                .map(|(size, ((value, interval), chance))| MetricRow {
                    layer: *layer,
                    index: Some(Index::Size(size)),
                    value,
                    interval,
                    chance: Some(chance / lookups),
                    ..row.clone()
                })
                .collect::<Vec<MetricRow>>()
        };
        let whole = Curve::sum(&curves);
        let named = std::iter::zip(&curves, &study.data.layers);
        let mut all: Vec<(&Curve, Option<u16>)> =
            named.map(|(curve, layer)| (curve, Some(layer.layer))).collect();
        all.extend(whole.as_ref().map(|whole| (whole, None)));
        rows.extend(parallel::map(&all, of_curve).concat());
    }
    rows
}

/// Hits by size.
struct Curve {
    /// Cache sizes.
    sizes: usize,
    /// Hits by size and lookups, `[G, sizes + 1]`.
    rows: Vec<f64>,
    /// Hits expected under uniform routing, `[sizes]`.
    chance: Vec<f64>,
}

impl Curve {
    /// `chance` is the share of hits by size under uniform routing, `[E]`.
    fn of(study: &Study<'_>, policy: Policy, place: usize, spans: &[Span], chance: &[f64]) -> Self {
        let layer = &study.data.layers[place];
        let mut hits = vec![Hits::new(layer.experts, 1); study.groups.len()];
        simulate(study, policy, place, spans, &mut hits);
        let lookups: u64 = hits.iter().map(Hits::requests).sum();
        let chance = chance.iter().map(|share| share * lookups as f64).collect();
        Self { sizes: layer.experts, rows: rows_of(&hits), chance }
    }

    /// Layers with equally many experts cached in each. A layer with fewer than that holds all.
    fn sum(curves: &[Self]) -> Option<Self> {
        let sizes = curves.iter().map(|curve| curve.sizes).max().filter(|sizes| *sizes > 0)?;
        let groups = curves.iter().map(|curve| curve.rows.len() / (curve.sizes + 1)).max()?;
        let mut rows = vec![0.0; groups * (sizes + 1)];
        let mut chance = vec![0.0; sizes];
        for curve in curves.iter().filter(|curve| curve.sizes > 0) {
            for (to, from) in
                rows.chunks_exact_mut(sizes + 1).zip(curve.rows.chunks_exact(curve.sizes + 1))
            {
                for (size, sum) in to[..sizes].iter_mut().enumerate() {
                    *sum += from[size.min(curve.sizes - 1)];
                }
                to[sizes] += from[curve.sizes];
            }
            for (size, sum) in chance.iter_mut().enumerate() {
                *sum += curve.chance[size.min(curve.sizes - 1)];
            }
        }
        Some(Self { sizes, rows, chance })
    }

    fn lookups(&self) -> f64 {
        column_sums(&self.rows, self.sizes + 1)[self.sizes]
    }
}

/// Gives hit rates that were chosen and measured in both directions the intervals of one of them, around
/// the same values. `rows` holds hits by size and lookups, `[G, sizes + 1]`.
///
/// Both directions rise and fall with the same accidents: what both halves happen to use more often is
/// chosen by each, and hit in the other. Resampling what is measured does not see that, and would give
/// intervals up to a quarter too narrow. One direction alone has no such tie.
pub(super) fn one_way(study: &Study<'_>, scope: &Scope, both: &mut [Estimate], rows: &[f64]) {
    let width = both.len() + 1;
    let half = study
        .measuring()
        .iter()
        .find(|half| half.domain == scope.domain && half.phase == scope.phase)
        .and_then(|half| column_ratios(&units(rows, width, half), width, half))
        .unwrap_or_default();
    let mut half = half.into_iter();
    for (value, interval) in both {
        *interval = half.next().and_then(|(centre, interval)| {
            let (low, high) = interval?;
            let around = |end: f64| (*value + end - centre).clamp(0.0, 1.0);
            Some((around(low), around(high)))
        });
    }
}

/// The rows of the groups in a scope, `[U, W]`, of those of all groups, `[G, W]`.
pub(super) fn units(rows: &[f64], width: usize, scope: &Scope) -> Vec<f64> {
    let firsts = scope.units.iter().map(|&group| group as usize * width);
    firsts.flat_map(|first| &rows[first..first + width]).copied().collect()
}

/// Hits by size and lookups, `[G, sizes + 1]`.
pub(super) fn rows_of(hits: &[Hits]) -> Vec<f64> {
    let row = |hits: &Hits| {
        let lookups = hits.requests();
        hits.curve().into_iter().chain([lookups]).map(|count| count as f64).collect::<Vec<f64>>()
    };
    hits.iter().flat_map(row).collect()
}

/// Runs a policy over the stretches of one layer.
fn simulate(study: &Study<'_>, policy: Policy, place: usize, spans: &[Span], hits: &mut [Hits]) {
    let layer = &study.data.layers[place];
    let requests = |span: &Span| LayerRequests::of(layer, span.start..span.end);
    let each = spans.iter().map(|span| (span, requests(span)));
    match policy {
        Policy::Lru | Policy::LruWarm => {
            let mut lru = Lru::new(layer.experts);
            for (span, requests) in each {
                let first = span.counted - span.start;
                let hits = &mut hits[span.group as usize];
                lru.run(&requests, |at, depths| {
                    if at >= first {
                        hits.add(depths);
                    }
                });
            }
        }
        Policy::Lfu => {
            let mut lfu = Lfu::new(layer.experts);
            for (span, requests) in each {
                lfu.run(&requests, |_, depths| hits[span.group as usize].add(depths));
            }
        }
        Policy::Static => {
            let Some(halves) = held_out(study, &[place]) else {
                return;
            };
            for (span, requests) in each {
                let half = usize::from(study.groups.is_second_half(span.group as usize));
                halves[half].run(&requests, |_, depths| hits[span.group as usize].add(depths));
            }
        }
        Policy::Belady => {
            let mut belady = Belady::new();
            for (span, requests) in each {
                let hits = &mut hits[span.group as usize];
                let future = Future::of(&requests);
                belady.run(&future, Start::Loaded, |_, depths| hits.add(depths));
            }
        }
    }
}

/// For each half of the sequences, the cache chosen on the other one; layers one after the other.
/// `None` where one half selected nothing.
pub(super) fn held_out(study: &Study<'_>, places: &[usize]) -> Option<[Fixed; 2]> {
    let counts_of = |second: bool| {
        let units: Vec<u32> = (0..study.groups.len() as u32)
            .filter(|&group| study.groups.is_second_half(group as usize) == second)
            .collect();
        let of_place = |&place: &usize| {
            let experts = study.data.layers[place].experts;
            column_sums(&study.counts()[place].rows(&units, None), experts)
        };
        let counts: Vec<f64> = places.iter().flat_map(of_place).collect();
        counts.iter().any(|count| *count > 0.0).then(|| Fixed::most_used(&counts))
    };
    Some([counts_of(true)?, counts_of(false)?])
}

/// Share of hits by size under uniform routing of stretches as long, for each (E, k) of a layer.
fn chances(study: &Study<'_>, policy: Policy, spans: &[Span]) -> HashMap<(usize, usize), Vec<f64>> {
    let mut shapes = shapes(study);
    shapes.sort_unstable();
    shapes.dedup();
    let curves = parallel::map(&shapes, |&(experts, top_k)| match policy {
        Policy::Static => (1..=experts).map(|m| m as f64 / experts as f64).collect(),
        Policy::Belady => uniform_belady(experts, top_k, &lengths(spans)),
        _ => cold_chance(experts, top_k, spans),
    });
    shapes.into_iter().zip(curves).collect()
}

/// E and k of each layer.
pub(super) fn shapes(study: &Study<'_>) -> Vec<(usize, usize)> {
    study.data.layers.iter().map(|layer| (layer.experts, layer.top_k)).collect()
}

/// Tokens of each stretch.
pub(super) fn lengths(spans: &[Span]) -> Vec<usize> {
    spans.iter().map(|span| span.end - span.start).collect()
}

/// Share of hits expected under uniform routing of stretches as long, from an empty cache.
fn cold_chance(experts: usize, top_k: usize, spans: &[Span]) -> Vec<f64> {
    let longest = lengths(spans).into_iter().max().unwrap_or(0);
    let cold = ColdStart::new(experts, top_k, longest);
    let tokens: usize = spans.iter().map(|span| span.end - span.counted).sum();
    let of_size = |size| {
        let of_span = |span: &Span| {
            cold.held(size, span.end - span.start) - cold.held(size, span.counted - span.start)
        };
        spans.iter().map(of_span).sum::<f64>() / (tokens * experts) as f64
    };
    (1..=experts).map(of_size).collect()
}
