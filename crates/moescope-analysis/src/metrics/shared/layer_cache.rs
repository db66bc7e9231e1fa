//! Hits of a cache per layer, by policy and size: what the metrics of hit rates share.

use std::collections::HashMap;

use super::spans::{Span, Stretch, lengths, spans};
use crate::counts::column_sums;
use crate::data::LayerData;
use crate::metric::Metric;
use crate::parallel;
use crate::ratio::{Estimate, column_ratios};
use crate::row::{Index, MetricRow};
use crate::simulate::cache::{
    Belady, ColdStart, Fixed, Future, Hits, LayerRequests, Lfu, Lru, Start, UniformRuns,
};
use crate::study::{Scope, Study};

/// How a cache chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Lru,
    LruWarm,
    Lfu,
    Static,
    Belady,
}

impl Policy {
    /// What the policy is simulated over.
    pub(super) fn stretches(self, study: &Study<'_>) -> Vec<Stretch> {
        match self {
            Self::LruWarm => vec![Stretch::AfterPrompt],
            _ if study.has_both_phases() => vec![Stretch::Sequence, Stretch::Generated],
            _ => vec![Stretch::Sequence],
        }
    }
}

/// Rows of a policy, as the metrics say.
pub(crate) fn rows(study: &Study<'_>, metric: &Metric, policy: Policy) -> Vec<MetricRow> {
    let places: Vec<usize> = (0..study.data.layers.len()).collect();
    let mut rows = Vec::new();
    for stretch in policy.stretches(study) {
        let spans = spans(study, stretch);
        let curves =
            parallel::map(&places, |&place| Curve::of(study, policy, place, stretch, &spans));
        let Some(whole) = Curve::sum(&curves) else { continue };
        // The layers one by one over all domains: with domains too, they would be E L D rows.
        let scopes: Vec<&Scope> = stretch.scopes(study).collect();
        let chances = parallel::map(&scopes, |scope| chances(study, policy, &spans, scope));
        let mut parts: Vec<(&Scope, Option<usize>, &Curve, Vec<f64>)> = Vec::new();
        for (scope, chances) in scopes.into_iter().zip(&chances) {
            let shares = |place: usize| {
                let LayerData { experts, top_k, .. } = study.data.layers[place];
                chances.get(&(experts, top_k)).map_or(&[][..], Vec::as_slice)
            };
            if scope.domain.is_none() {
                let of =
                    |&place: &usize| (scope, Some(place), &curves[place], shares(place).into());
                parts.extend(places.iter().map(of));
            }
            parts.push((scope, None, &whole, mean_share(&curves, shares, scope)));
        }
        let of_part =
            |(scope, place, curve, chance): &(&Scope, Option<usize>, &Curve, Vec<f64>)| {
                let layer = place.map(|place| study.data.layers[place].layer);
                curve
                    .rows(study, metric, policy, scope, chance)
                    .map(|row| MetricRow { layer, ..row })
                    .collect()
            };
        rows.extend(parallel::map::<_, Vec<MetricRow>>(&parts, of_part).concat());
    }
    rows
}

/// Hits by size.
struct Curve {
    /// Cache sizes.
    sizes: usize,
    /// Hits by size and lookups, `[G, sizes + 1]`.
    hits: Vec<f64>,
}

impl Curve {
    fn of(
        study: &Study<'_>,
        policy: Policy,
        place: usize,
        stretch: Stretch,
        spans: &[Span],
    ) -> Self {
        let sizes = study.data.layers[place].experts;
        let hits = match (policy, stretch) {
            (Policy::Lru | Policy::LruWarm, Stretch::Sequence) => {
                rows_of(&study.lru()[place].sequence)
            }
            (Policy::Lru | Policy::LruWarm, Stretch::AfterPrompt) => {
                rows_of(&study.lru()[place].after_prompt)
            }
            _ => rows_of(&simulate(study, policy, place, spans)),
        };
        Self { sizes, hits }
    }

    /// Layers with equally many experts cached in each. A layer with fewer than that holds all.
    fn sum(curves: &[Self]) -> Option<Self> {
        let sizes = curves.iter().map(|curve| curve.sizes).max().filter(|sizes| *sizes > 0)?;
        let groups = curves.iter().map(|curve| curve.hits.len() / (curve.sizes + 1)).max()?;
        let mut hits = vec![0.0; groups * (sizes + 1)];
        for curve in curves.iter().filter(|curve| curve.sizes > 0) {
            for (to, from) in
                hits.chunks_exact_mut(sizes + 1).zip(curve.hits.chunks_exact(curve.sizes + 1))
            {
                for (size, sum) in to[..sizes].iter_mut().enumerate() {
                    *sum += from[size.min(curve.sizes - 1)];
                }
                to[sizes] += from[curve.sizes];
            }
        }
        Some(Self { sizes, hits })
    }

    fn lookups(&self, scope: &Scope) -> f64 {
        let lookups = |group: &u32| self.hits[(*group as usize + 1) * (self.sizes + 1) - 1];
        scope.units.iter().map(lookups).sum()
    }

    /// Rows by size in a scope, the layer left open.
    fn rows(
        &self,
        study: &Study<'_>,
        metric: &Metric,
        policy: Policy,
        scope: &Scope,
        chance: &[f64],
    ) -> impl Iterator<Item = MetricRow> {
        let estimates = estimates(study, policy, scope, &self.hits, self.sizes);
        let row = study.row(metric.name, metric.unit, scope);
        let sizes = (1..).zip(estimates.into_iter().zip(chance));
        sizes
            .map(move |(size, ((value, interval), &chance))| MetricRow {
                index: Some(Index::Size(size)),
                value,
                interval,
                chance: Some(chance),
                ..row.clone()
            })
            .collect::<Vec<_>>()
            .into_iter()
    }
}

/// Hit rates by size in a scope; `hits` are hits by size and lookups, `[G, sizes + 1]`.
pub(super) fn estimates(
    study: &Study<'_>,
    policy: Policy,
    scope: &Scope,
    hits: &[f64],
    sizes: usize,
) -> Vec<Estimate> {
    let width = sizes + 1;
    let mut estimates = column_ratios(&units(hits, width, scope), width, scope).unwrap_or_default();
    if policy == Policy::Static {
        one_way(study, scope, &mut estimates, hits);
    }
    estimates
}

/// The share of hits by size of all layers together, from that of each, `shares(place)`.
fn mean_share<'c>(
    curves: &[Curve],
    shares: impl Fn(usize) -> &'c [f64],
    scope: &Scope,
) -> Vec<f64> {
    let sizes = curves.iter().map(|curve| curve.sizes).max().unwrap_or(0);
    let (mut hits, mut all) = (vec![0.0; sizes], 0.0);
    for (place, curve) in curves.iter().enumerate() {
        let (lookups, shares) = (curve.lookups(scope), shares(place));
        all += lookups;
        if let Some(last) = shares.len().checked_sub(1) {
            for (size, sum) in hits.iter_mut().enumerate() {
                *sum += shares[size.min(last)] * lookups;
            }
        }
    }
    hits.iter().map(|hits| hits / all).collect()
}

/// Gives hit rates that were chosen and measured in both directions the intervals of one of them, around
/// the same values. `rows` holds hits by size and lookups, `[G, sizes + 1]`.
///
/// Both directions rise and fall with the same accidents: what both halves happen to use more often is
/// chosen by each, and hit in the other. Resampling what is measured does not see that, and would give
/// intervals up to a quarter too narrow. One direction alone has no such tie.
fn one_way(study: &Study<'_>, scope: &Scope, both: &mut [Estimate], rows: &[f64]) {
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

/// Hits of LRU in one layer over whole sequences, by group: of all tokens, and of those behind the prompt.
/// One pass serves both.
pub(crate) struct LayerLru {
    sequence: Vec<Hits>,
    after_prompt: Vec<Hits>,
}

impl LayerLru {
    pub(crate) fn all(study: &Study<'_>) -> Vec<Self> {
        let spans = spans(study, Stretch::Sequence);
        parallel::map(&study.data.layers, |layer| {
            let none = || vec![Hits::new(layer.experts, 1); study.groups.len()];
            let (mut sequence, mut after_prompt) = (none(), none());
            let mut lru = Lru::new(layer.experts);
            for span in &spans {
                let (all, after) =
                    (&mut sequence[span.group as usize], &mut after_prompt[span.group as usize]);
                let prompt = span.prompt_end - span.start;
                lru.run(&LayerRequests::of(layer, span.start..span.end), |at, depths| {
                    all.add(depths);
                    if at >= prompt {
                        after.add(depths);
                    }
                });
            }
            Self { sequence, after_prompt }
        })
    }
}

/// Runs a policy over the stretches of one layer, from the start of each. Hits by group.
fn simulate(study: &Study<'_>, policy: Policy, place: usize, spans: &[Span]) -> Vec<Hits> {
    let layer = &study.data.layers[place];
    let mut hits = vec![Hits::new(layer.experts, 1); study.groups.len()];
    let each = spans.iter().map(|span| (span, LayerRequests::of(layer, span.start..span.end)));
    match policy {
        Policy::Lru | Policy::LruWarm => {
            let mut lru = Lru::new(layer.experts);
            for (span, requests) in each {
                lru.run(&requests, |_, depths| hits[span.group as usize].add(depths));
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
                return hits;
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
    hits
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

/// Share of hits by size under uniform routing of stretches as long as those of a scope, for each (E, k) of a
/// layer.
fn chances(
    study: &Study<'_>,
    policy: Policy,
    spans: &[Span],
    scope: &Scope,
) -> HashMap<(usize, usize), Vec<f64>> {
    let lengths = lengths(spans, study, scope);
    let mut shapes = shapes(study);
    shapes.sort_unstable();
    shapes.dedup();
    let curves = parallel::map(&shapes, |&(experts, top_k)| match policy {
        Policy::Static => (1..=experts).map(|m| m as f64 / experts as f64).collect(),
        Policy::Belady => {
            UniformRuns::new(&[(experts, top_k)], &lengths).of_part(scope.domain.is_some()).belady()
        }
        _ => cold_chance(experts, top_k, &lengths),
    });
    shapes.into_iter().zip(curves).collect()
}

/// E and k of each layer.
pub(super) fn shapes(study: &Study<'_>) -> Vec<(usize, usize)> {
    study.data.layers.iter().map(|layer| (layer.experts, layer.top_k)).collect()
}

/// Share of hits expected under uniform routing of stretches as long (tokens before those that count, and
/// those), from an empty cache.
fn cold_chance(experts: usize, top_k: usize, lengths: &[(usize, usize)]) -> Vec<f64> {
    let longest = lengths.iter().map(|(before, counted)| before + counted).max().unwrap_or(0);
    let cold = ColdStart::new(experts, top_k, longest);
    let tokens: usize = lengths.iter().map(|(_, counted)| counted).sum();
    let of_size = |size| {
        let held = |&(before, counted): &(usize, usize)| {
            cold.held(size, before + counted) - cold.held(size, before)
        };
        lengths.iter().map(held).sum::<f64>() / (tokens * experts) as f64
    };
    (1..=experts).map(of_size).collect()
}
