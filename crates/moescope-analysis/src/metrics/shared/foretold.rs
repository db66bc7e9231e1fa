//! What the experts of one layer foretell of those of the next MoE layer: simulated once for the
//! metrics of recall and of prefetching.

use crate::data::LayerData;
use crate::parallel;
use crate::ratio::{Estimate, RatioTable, column_ratios};
use crate::simulate::cache::Hits;
use crate::simulate::prefetch::Transitions;
use crate::study::{Scope, Study};
use crate::transitions::neighbours;

use super::layer_cache::{rows_of, units};

/// Most tokens looked at per layer: at this many, their sampling noise is far below the difference
/// between texts.
const MAX_TOKENS: usize = 1 << 18;

/// One layer, foretold from the MoE layer before it.
struct Foretold {
    /// Index of the earlier layer into the layers of the run.
    place: usize,
    /// Recall at k and exact sets, of the groups of the half that measures.
    sets: RatioTable,
    prefetch: Prefetch,
}

/// Prefetches into one layer, or (without one) into all of them.
struct Prefetch {
    layer: Option<u16>,
    experts: usize,
    /// Needed experts over tokens looked at.
    top_k: f64,
    /// Hits by p and lookups, `[G, E + 1]`; zeros for groups of the half that chooses.
    hits: Vec<f64>,
}

/// Recall and exact sets of each pair of neighbouring layers, and hits by the number of experts brought.
pub(crate) struct NextLayer {
    /// By earlier layer.
    pub(crate) sets: Vec<NextSets>,
    /// By later layer, then all of them where they have equally many experts, over all domains and in each.
    pub(crate) prefetches: Vec<PrefetchCurve>,
}

/// Recall and exact sets.
pub(crate) struct NextSets {
    /// Index of the earlier layer into the layers of the run.
    pub(crate) place: usize,
    /// `[scopes][2]`
    pub(crate) estimates: Vec<Vec<Option<Estimate>>>,
}

/// Hit rates of a prefetch.
pub(crate) struct PrefetchCurve {
    /// Where it is measured.
    pub(crate) scope: Scope,
    /// Model layer of the experts brought.
    pub(crate) layer: Option<u16>,
    /// Experts of the layer, E.
    pub(crate) experts: usize,
    /// Needed experts per token.
    pub(crate) top_k: f64,
    /// By p - 1.
    pub(crate) hit_rates: Vec<Estimate>,
}

impl NextLayer {
    pub(crate) fn new(study: &Study<'_>) -> Self {
        let foretold: Vec<Foretold> =
            parallel::map(&neighbours(study), |&place| foretell(study, place))
                .into_iter()
                .flatten()
                .collect();
        let sets = parallel::map(&foretold, |foretold| {
            let of_scope = |scope: &Scope| foretold.sets.shares(scope);
            NextSets {
                place: foretold.place,
                estimates: study.scopes().iter().map(of_scope).collect(),
            }
        });
        let prefetches: Vec<Prefetch> =
            foretold.into_iter().map(|foretold| foretold.prefetch).collect();
        let whole = whole(&prefetches);
        let measuring = &study.halves()[1];
        let mut parts: Vec<(&Prefetch, &Scope)> =
            prefetches.iter().chain(&whole).map(|prefetch| (prefetch, measuring)).collect();
        // The layers one by one over all domains: with domains too, they would be E L D rows.
        let domains = study.measuring().iter().filter(|scope| scope.domain.is_some());
        parts.extend(domains.flat_map(|scope| whole.as_ref().map(|whole| (whole, scope))));
        let prefetches = parallel::map(&parts, |(prefetch, scope)| {
            let width = prefetch.experts + 1;
            PrefetchCurve {
                scope: (*scope).clone(),
                layer: prefetch.layer,
                experts: prefetch.experts,
                top_k: prefetch.top_k,
                hit_rates: column_ratios(&units(&prefetch.hits, width, scope), width, scope)
                    .unwrap_or_default(),
            }
        });
        Self { sets, prefetches }
    }
}

/// Learns from the first half of the sequences and foretells the second. `None` where one is empty.
///
/// Foretelling the first half from the second too would use all sequences, but not for a better
/// interval: both directions rise and fall with the same accidents, which resampling what is foretold
/// does not see.
fn foretell(study: &Study<'_>, place: usize) -> Option<Foretold> {
    let (from, to): (&LayerData, &LayerData) =
        (&study.data.layers[place], &study.data.layers[place + 1]);
    let stride = study.data.len().div_ceil(MAX_TOKENS).max(1);
    let mut halves = [Vec::new(), Vec::new()];
    // Multiples of the stride are numbered as they come.
    let mut group_of = Vec::new();
    for (index, sequence) in study.data.sequences.iter().enumerate() {
        let group = study.groups.of_sequence(index);
        let tokens = (sequence.start.next_multiple_of(stride)..sequence.end).step_by(stride);
        let half = &mut halves[usize::from(study.groups.is_second_half(group))];
        half.extend(tokens.clone());
        group_of.extend(tokens.map(|_| group));
    }
    let [learn, test] = halves;
    if learn.is_empty() || test.is_empty() {
        return None;
    }
    let mut hits = vec![Hits::new(to.experts, 1); study.groups.len()];
    let mut sets = RatioTable::new(study.groups.len(), 2);
    let mut tokens = 0;
    Transitions::learn(from, to, learn).rank(from, to, test, |token, places| {
        let group = group_of[token / stride];
        hits[group].add(places);
        tokens += 1;
        let found = places.iter().filter(|&&place| (place as usize) < to.top_k).count();
        let cell = sets.cell(group, study.data.tokens.phase[token]);
        cell[0][0] += found as f64;
        cell[0][1] += places.len() as f64;
        cell[1][0] += f64::from(u8::from(found == places.len()));
        cell[1][1] += 1.0;
    });
    let lookups: u64 = hits.iter().map(Hits::requests).sum();
    let prefetch = Prefetch {
        layer: Some(to.layer),
        experts: to.experts,
        top_k: lookups as f64 / f64::from(tokens.max(1)),
        hits: rows_of(&hits),
    };
    Some(Foretold { place, sets, prefetch })
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
