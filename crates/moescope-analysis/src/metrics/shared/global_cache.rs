//! Hits of one cache that all layers share, by policy and size.

use super::layer_cache::{Policy, estimates, held_out, rows_of, shapes};
use super::spans::{Span, Stretch, lengths, spans};
use crate::metric::Metric;
use crate::parallel;
use crate::row::{Index, MetricRow};
use crate::simulate::cache::{
    Future, Hits, Lfu, Lru, ModelRequests, Requests, Start, UniformRuns, belady_hits,
};
use crate::study::{Scope, Study};

/// Rows of a policy, as the metrics say. Sizes are multiples of the number of layers.
pub(crate) fn rows(study: &Study<'_>, metric: &Metric, policy: Policy) -> Vec<MetricRow> {
    let layers = study.data.layers.len() as u32;
    let sizes = sizes(study);
    let mut rows = Vec::new();
    for stretch in policy.stretches(study) {
        let spans = spans(study, stretch);
        let simulated;
        let hits = match (policy, stretch) {
            (Policy::Lru | Policy::LruWarm, Stretch::Sequence) => &study.global_lru().sequence,
            (Policy::Lru | Policy::LruWarm, Stretch::AfterPrompt) => {
                &study.global_lru().after_prompt
            }
            _ => {
                simulated = simulate(study, policy, sizes, &spans);
                &simulated
            }
        };
        let scopes: Vec<&Scope> = stretch.scopes(study).collect();
        let of_scope = |scope: &&Scope| {
            let estimates = estimates(study, policy, scope, hits, sizes);
            let chances = chances(study, policy, sizes, &spans, scope);
            let row = study.row(metric.name, metric.unit, scope);
            let sizes = (1..).zip(estimates.into_iter().zip(chances));
            sizes
                .map(|(size, ((value, interval), chance))| MetricRow {
                    index: Some(Index::Size(size * layers)),
                    value,
                    interval,
                    chance: Some(chance),
                    ..row.clone()
                })
                .collect::<Vec<MetricRow>>()
        };
        rows.extend(parallel::map(&scopes, of_scope).concat());
    }
    rows
}

/// Sizes, in experts per layer on average.
fn sizes(study: &Study<'_>) -> usize {
    study.data.layers.iter().map(|layer| layer.experts).max().unwrap_or(0)
}

/// Share of hits under uniform routing of stretches as long as those of a scope, by size.
fn chances(
    study: &Study<'_>,
    policy: Policy,
    sizes: usize,
    spans: &[Span],
    scope: &Scope,
) -> Vec<f64> {
    let (shapes, layers) = (shapes(study), study.data.layers.len());
    let runs =
        UniformRuns::new(&shapes, &lengths(spans, study, scope)).of_part(scope.domain.is_some());
    match policy {
        Policy::Lru | Policy::LruWarm => runs.shared_lru(sizes, layers),
        Policy::Lfu => runs.shared_lfu(sizes, layers),
        Policy::Static => {
            let experts: usize = shapes.iter().map(|(experts, _)| experts).sum();
            (1..=sizes).map(|size| ((size * layers) as f64 / experts as f64).min(1.0)).collect()
        }
        Policy::Belady => runs.shared_belady(sizes, layers),
    }
}

/// Hits of LRU over whole sequences by size, and lookups, `[G, sizes + 1]`: of all tokens, and of those
/// behind the prompt. One pass serves both.
pub(crate) struct GlobalLru {
    sequence: Vec<f64>,
    after_prompt: Vec<f64>,
}

impl GlobalLru {
    pub(crate) fn new(study: &Study<'_>) -> Self {
        let layers = &study.data.layers;
        let (sizes, count) = (sizes(study), layers.len());
        let spans = spans(study, Stretch::Sequence);
        let of_group = |spans: &Vec<&Span>| {
            let mut lru = Lru::new(layers.iter().map(|layer| layer.experts).sum());
            let [mut all, mut after] = [(); 2].map(|()| Hits::new(sizes, count));
            for span in spans {
                let prompt = (span.prompt_end - span.start) * count;
                lru.run(&ModelRequests::of(layers, span.start..span.end), |at, depths| {
                    all.add(depths);
                    if at >= prompt {
                        after.add(depths);
                    }
                });
            }
            [rows_of(&[all]), rows_of(&[after])]
        };
        let (sequence, after_prompt): (Vec<_>, Vec<_>) =
            parallel::map(&by_group(study, &spans), of_group)
                .into_iter()
                .map(|[a, b]| (a, b))
                .unzip();
        Self { sequence: sequence.concat(), after_prompt: after_prompt.concat() }
    }
}

/// Stretches by group, so that each is the work of one thread.
fn by_group<'s>(study: &Study<'_>, spans: &'s [Span]) -> Vec<Vec<&'s Span>> {
    let mut members: Vec<Vec<&Span>> = vec![Vec::new(); study.groups.len()];
    for span in spans {
        members[span.group as usize].push(span);
    }
    members
}

/// Hits by size and lookups, `[G, sizes + 1]`, of caches that begin with each stretch.
fn simulate(study: &Study<'_>, policy: Policy, sizes: usize, spans: &[Span]) -> Vec<f64> {
    let layers = study.data.layers.len();
    let places: Vec<usize> = (0..layers).collect();
    let fixed = match policy {
        Policy::Static => match held_out(study, &places) {
            None => return vec![0.0; study.groups.len() * (sizes + 1)],
            halves => halves,
        },
        _ => None,
    };
    let groups: Vec<(usize, Vec<&Span>)> = by_group(study, spans).into_iter().enumerate().collect();
    let of_group = |(group, spans): &(usize, Vec<&Span>)| {
        let requests =
            spans.iter().map(|span| ModelRequests::of(&study.data.layers, span.start..span.end));
        let mut hits = Hits::new(sizes, layers);
        let keys = study.data.layers.iter().map(|layer| layer.experts).sum();
        match (policy, &fixed) {
            (Policy::Lru | Policy::LruWarm, _) => {
                let mut lru = Lru::new(keys);
                requests.for_each(|requests| lru.run(&requests, |_, depths| hits.add(depths)));
            }
            (Policy::Lfu, _) => {
                let mut lfu = Lfu::new(keys);
                requests.for_each(|requests| lfu.run(&requests, |_, depths| hits.add(depths)));
            }
            (Policy::Static, Some(halves)) => {
                let half = &halves[usize::from(study.groups.is_second_half(*group))];
                requests.for_each(|requests| half.run(&requests, |_, depths| hits.add(depths)));
            }
            _ => return bound(requests, sizes, layers),
        }
        rows_of(&[hits])
    };
    parallel::map(&groups, of_group).concat()
}

/// Hits of the bound by size, and lookups, `[sizes + 1]`.
fn bound(sequences: impl Iterator<Item = impl Requests>, sizes: usize, layers: usize) -> Vec<f64> {
    let keys: Vec<usize> = (1..=sizes).map(|size| size * layers).collect();
    let mut row = vec![0.0; sizes + 1];
    for requests in sequences {
        let future = Future::of(&requests);
        for (sum, hits) in row.iter_mut().zip(belady_hits(&future, Start::Loaded, &keys)) {
            *sum += hits as f64;
        }
        row[sizes] += future.uses() as f64;
    }
    row
}
