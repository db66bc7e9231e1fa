//! Hits of one cache that all layers share.

use super::hit_rate::{Span, held_out, lengths, one_way, rows_of, scopes, shapes, spans, units};
use crate::metric::{Metric, Need};
use crate::parallel;
use crate::ratio::column_ratios;
use crate::row::{Index, MetricRow};
use crate::simulate::cache::{
    Future, Hits, Lfu, Lru, ModelRequests, Start, belady_hits, uniform_shared_belady,
    uniform_shared_lfu, uniform_shared_lru,
};
use crate::study::{Scope, Study};

/// Rows of each policy: none x size, in experts of all layers together (L, 2L, ..., E L for L layers),
/// over whole sequences and, where there are generated tokens, over those alone. Interval: bootstrap over sequences.
pub(crate) const HIT_RATE_GLOBAL_LRU: Metric = Metric {
    name: "hit_rate_global_lru",
    title: "Hit rate of a shared cache, LRU",
    unit: "ratio",
    formula: "hit_rate_lru of one cache of M experts over all layers: token by token, layer by layer",
    chance: "the same cache under simulated uniform routing: below M / (all experts) where it is small, since \
             the layers take turns",
    source: "As hit_rate_lru; layers that need more room take it",
    needs: &[Need::Ids],
    compute: |study| rows(study, &HIT_RATE_GLOBAL_LRU, Policy::Lru),
};

pub(crate) const HIT_RATE_GLOBAL_LFU: Metric = Metric {
    name: "hit_rate_global_lfu",
    title: "Hit rate of a shared cache, LFU",
    unit: "ratio",
    formula: "hit_rate_lfu of one cache of M experts over all layers",
    chance: "as hit_rate_global_lru",
    source: "As hit_rate_lfu",
    needs: &[Need::Ids],
    compute: |study| rows(study, &HIT_RATE_GLOBAL_LFU, Policy::Lfu),
};

pub(crate) const HIT_RATE_GLOBAL_STATIC: Metric = Metric {
    name: "hit_rate_global_static",
    title: "Hit rate of a shared cache, static",
    unit: "ratio",
    formula: "hit_rate_static of the M experts of all layers most used in the other half of the sequences",
    chance: "M / (all experts)",
    source: "As hit_rate_static; it is also the best split of a static cache over layers",
    needs: &[Need::Ids],
    compute: |study| rows(study, &HIT_RATE_GLOBAL_STATIC, Policy::Static),
};

pub(crate) const HIT_RATE_GLOBAL_BELADY: Metric = Metric {
    name: "hit_rate_global_belady",
    title: "Hit rate of a shared cache, bound",
    unit: "ratio",
    formula: "hit_rate_belady of one cache of M experts over all layers, for up to 16 sizes",
    chance: "the same cache under simulated uniform routing",
    source: "As hit_rate_belady",
    needs: &[Need::Ids],
    compute: |study| rows(study, &HIT_RATE_GLOBAL_BELADY, Policy::Belady),
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    Lru,
    Lfu,
    Static,
    Belady,
}

/// Sizes at which the bound is computed: the pass over all of them takes a step for each.
const BOUND_SIZES: usize = 16;

fn rows(study: &Study<'_>, metric: &Metric, policy: Policy) -> Vec<MetricRow> {
    let layers = &study.data.layers;
    let per_layer = layers.iter().map(|layer| layer.experts).max().unwrap_or(0);
    // Experts per layer, on average.
    let mut sizes: Vec<usize> = match policy {
        Policy::Belady => {
            (1..=BOUND_SIZES).map(|n| (n * per_layer).div_ceil(BOUND_SIZES)).collect()
        }
        _ => (1..=per_layer).collect(),
    };
    sizes.dedup();
    let of_scope = |scope: &Scope| {
        let width = sizes.len() + 1;
        let spans = spans(study, scope, false);
        let rows = hits(study, policy, &sizes, &spans);
        let chances = chances(study, policy, &sizes, &lengths(&spans));
        let row = study.row(metric.name, metric.unit, scope);
        let estimates = column_ratios(&units(&rows, width, scope), width, scope);
        let mut estimates = estimates.unwrap_or_default();
        if policy == Policy::Static {
            one_way(study, scope, &mut estimates, &rows);
        }
        sizes
            .iter()
            .zip(estimates)
            .zip(chances)
            .map(|((size, (value, interval)), chance)| MetricRow {
                index: Some(Index::Size((size * layers.len()) as u32)),
                value,
                interval,
                chance: Some(chance),
                ..row.clone()
            })
            .collect::<Vec<MetricRow>>()
    };
    scopes(study).flat_map(of_scope).collect()
}

/// Share of hits under uniform routing of stretches of these lengths, by size.
fn chances(study: &Study<'_>, policy: Policy, sizes: &[usize], lengths: &[usize]) -> Vec<f64> {
    let (shapes, layers) = (shapes(study), study.data.layers.len());
    match policy {
        Policy::Lru => uniform_shared_lru(&shapes, lengths, sizes.len(), layers),
        Policy::Lfu => uniform_shared_lfu(&shapes, lengths, sizes.len(), layers),
        Policy::Static => {
            let experts: usize = shapes.iter().map(|(experts, _)| experts).sum();
            sizes.iter().map(|size| ((size * layers) as f64 / experts as f64).min(1.0)).collect()
        }
        Policy::Belady => {
            let sizes: Vec<usize> = sizes.iter().map(|size| size * layers).collect();
            uniform_shared_belady(&shapes, lengths, &sizes)
        }
    }
}

/// Hits by size and lookups, `[G, sizes + 1]`.
fn hits(study: &Study<'_>, policy: Policy, sizes: &[usize], spans: &[Span]) -> Vec<f64> {
    let layers = study.data.layers.len();
    let places: Vec<usize> = (0..layers).collect();
    let fixed = match policy {
        Policy::Static => match held_out(study, &places) {
            None => return vec![0.0; study.groups.len() * (sizes.len() + 1)],
            halves => halves,
        },
        _ => None,
    };
    // By group, so that each is the work of one thread.
    let mut members: Vec<Vec<&Span>> = vec![Vec::new(); study.groups.len()];
    for span in spans {
        members[span.group as usize].push(span);
    }
    let groups: Vec<(usize, Vec<&Span>)> = members.into_iter().enumerate().collect();
    let of_group = |(group, spans): &(usize, Vec<&Span>)| {
        let requests =
            spans.iter().map(|span| ModelRequests::of(&study.data.layers, span.start..span.end));
        let mut hits = Hits::new(sizes.len(), layers);
        let keys = study.data.layers.iter().map(|layer| layer.experts).sum();
        match (policy, &fixed) {
            (Policy::Lru, _) => {
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
fn bound<'a>(
    sequences: impl Iterator<Item = ModelRequests<'a>>,
    sizes: &[usize],
    layers: usize,
) -> Vec<f64> {
    let sizes: Vec<usize> = sizes.iter().map(|size| size * layers).collect();
    let mut row = vec![0.0; sizes.len() + 1];
    for requests in sequences {
        let future = Future::of(&requests);
        for (sum, hits) in row.iter_mut().zip(belady_hits(&future, Start::Loaded, &sizes)) {
            *sum += hits as f64;
        }
        row[sizes.len()] += future.uses() as f64;
    }
    row
}
