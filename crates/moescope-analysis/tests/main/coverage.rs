//! How often intervals hold what they should: the chance level, on traces that are at chance; and that they do
//! not hold it where there is something to see.

use std::collections::{BTreeMap, BTreeSet};

use moescope_analysis::rng::Rng;
use moescope_analysis::{Analysis, METRICS, MetricRow, Options, RunData, analyze_data};
use moescope_trace::Phase;

use crate::support::{SMALL, Shape, steps, uniform, with_token_ids};

const SHAPE: Shape = Shape { layers: 3, ..SMALL };

/// Tokens of each sequence that were generated.
const GENERATED: usize = 16;

/// Traces looked at.
const TRACES: u64 = 120;

/// A run at chance in all that a run can record: uniform routing, weights and norms that do not depend
/// on the expert or the rank, a router that does not distinguish experts.
fn at_chance(seed: u64) -> RunData {
    let mut data = uniform(SHAPE, 1000 + seed);
    with_token_ids(&mut data, 30, seed);
    let mut rng = Rng::new(seed ^ 0x5EED);
    for layer in &mut data.layers {
        let (k, selected) = (layer.top_k, layer.ids.len());
        let mut weights: Vec<f32> = (0..selected).map(|_| 0.1 + rng.unit() as f32).collect();
        for token in weights.chunks_exact_mut(k) {
            let total: f32 = token.iter().sum();
            token.iter_mut().for_each(|weight| *weight /= total);
        }
        layer.weights = Some(weights);
        layer.output_norms = Some((0..selected).map(|_| 0.5 + rng.unit() as f32).collect());
        layer.entropy = Some(vec![(layer.experts as f32).ln(); selected / k]);
        layer.margin = Some(vec![0.0; selected / k]);
    }
    // A pass over each prompt, and one for each generated token.
    let mut passes = Vec::new();
    for sequence in data.sequences.clone() {
        let prompt = sequence.end - GENERATED;
        data.tokens.step[sequence.start..prompt].fill(passes.len() as u32);
        passes.push((Phase::Prefill, (prompt - sequence.start) as u32, 1_000_000));
        for token in prompt..sequence.end {
            data.tokens.phase[token] = Phase::Decode;
            data.tokens.step[token] = passes.len() as u32;
            passes.push((Phase::Decode, 1, 100_000));
        }
    }
    data.steps = steps(&passes);
    data.check().unwrap();
    data
}

/// Intervals that hold the chance level, and all of them.
type Held = BTreeMap<(&'static str, &'static str), (usize, usize)>;

/// Over [`TRACES`] traces, for each metric with intervals and chance levels and each kind of its rows
/// (over all, of one phase, of one domain): of every layer the middle one of its rows, so that what is
/// counted is independent.
fn count() -> Held {
    let options = Options { resamples: 400, seed: 5 };
    let mut held = Held::new();
    for seed in 0..TRACES {
        let analysis = analyze_data(&at_chance(seed), &options);
        for metric in METRICS {
            let with_both: Vec<&MetricRow> = analysis
                .rows_of(metric.name)
                .filter(|row| row.interval.is_some() && row.chance.is_some())
                .collect();
            for (kind, domain, phase) in [
                ("all", None, None),
                ("phase", None, Some("decode")),
                ("domain", Some("english"), None),
            ] {
                // Means over the layers are not independent of them.
                let by_layer = with_both.iter().any(|row| row.layer.is_some());
                for layer in (0..SHAPE.layers).map(|layer| by_layer.then_some(layer)) {
                    let rows: Vec<_> = with_both
                        .iter()
                        .filter(|row| row.layer == layer && row.phase == phase)
                        .filter(|row| row.domain.as_deref() == domain)
                        .collect();
                    let Some(row) = rows.get(rows.len() / 2) else { continue };
                    let ((low, high), chance) = (row.interval.unwrap(), row.chance.unwrap());
                    // What was recorded with 32 bits is equal within 24.
                    let rounding = 1e-6 * chance.abs();
                    let entry = held.entry((metric.name, kind)).or_default();
                    entry.0 += usize::from((low - rounding..=high + rounding).contains(&chance));
                    entry.1 += 1;
                    if !by_layer {
                        break;
                    }
                }
            }
        }
    }
    held
}

/// Metrics whose intervals hold the chance level more often than in 95 % of cases, and why. At chance
/// they are wide; away from it they are not.
const WIDE: &[(&str, &str)] = &[
    ("imbalance", NOISE),
    ("max_vio", NOISE),
    ("coefficient_of_variation", NOISE),
    ("gini", NOISE),
    ("normalised_entropy", NOISE),
    ("effective_experts", NOISE),
    ("domain_divergence", NOISE),
    ("gpu_imbalance", NOISE),
    ("gpu_imbalance_packed", NOISE),
    ("gpu_imbalance_eplb", NOISE),
    ("vocabulary_specialisation", FIRST_ORDER),
    ("next_token_specialisation", FIRST_ORDER),
    ("coactivation_excess", FIRST_ORDER),
    ("path_information", FIRST_ORDER),
    ("hit_rate_static", ONE_WAY),
    ("hit_rate_global_static", ONE_WAY),
    ("coverage", "it ends on whole experts"),
    ("coactivation", RARE),
    ("coactivation_lift", RARE),
    ("expert_path", RARE),
    ("next_layer_exact", RARE),
    ("router_entropy", EXACT),
    ("router_margin", EXACT),
    ("distinct_experts", EXACT),
];

const NOISE: &str = "noise moves it one way, and resampling doubles the noise";
const FIRST_ORDER: &str = "an extreme is less than linear: its first order overstates the spread";
const ONE_WAY: &str = "the interval of one direction serves for the mean of both";
const RARE: &str = "the interval of a rare event is no narrower than that of independent tokens";
const EXACT: &str = "at chance it has no spread at all";

#[test]
fn uniform_traces_are_at_chance() {
    let held = count();
    for ((metric, kind), (held, all)) in &held {
        println!("{metric:28} {kind:8} {held:4} of {all:4} {:6.3}", *held as f64 / *all as f64);
    }
    // Those that can be split are seen split.
    for metric in ["coactivation_excess", "path_information", "expert_path", "reuse"] {
        for kind in ["all", "phase", "domain"] {
            assert!(held.contains_key(&(metric, kind)), "{metric} {kind}");
        }
    }
    // Every metric that has both is here.
    let seen: Vec<&str> = held.keys().map(|(metric, _)| *metric).collect();
    for metric in METRICS.iter().filter(|metric| !metric.chance.is_empty()) {
        let alone = metric.name == "dead_experts";
        assert_eq!(seen.contains(&metric.name), !alone, "{}", metric.name);
    }
    let mut wrong = Vec::new();
    for ((metric, kind), (held, all)) in held {
        // 95 %, give or take what chance does in one of 10,000 such counts.
        let (n, p) = (all as f64, 0.95);
        let reach = 3.72 * (n * p * (1.0 - p)).sqrt();
        let wide = WIDE.iter().any(|(name, _)| *name == metric);
        let most = if wide { n } else { n * p + reach };
        if !(n * p - reach..=most).contains(&(held as f64)) {
            wrong.push(format!(
                "{metric} ({kind}): {held} of {all} intervals hold the chance level"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A run with everything that a wide metric could see. A token's id and its domain choose one of six pairs of
/// experts, at every layer, for four tokens of five: popularity, domains, tokens that belong to experts, pairs,
/// layers that follow each other, few distinct experts to a pass.
fn planted(seed: u64) -> RunData {
    let mut data = at_chance(seed);
    let mut rng = Rng::new(seed ^ 0xF1A7);
    for sequence in data.sequences.clone() {
        for token in sequence.start..sequence.end {
            let pair = (data.tokens.token_id[token] % 3) as u16 + sequence.domain;
            for layer in &mut data.layers {
                if rng.unit() < 0.8 {
                    layer.ids[2 * token..2 * token + 2].copy_from_slice(&[2 * pair, 2 * pair + 1]);
                }
            }
        }
    }
    surer(&mut data);
    data
}

/// A run whose first expert is in every set: no placement makes that even, with one redundant expert per GPU.
fn one_hot(seed: u64) -> RunData {
    let mut data = at_chance(seed);
    for layer in &mut data.layers {
        for set in layer.ids.chunks_exact_mut(2) {
            set[1] = set[1].max(1);
            set[0] = 0;
        }
    }
    data
}

/// A router that tells experts apart.
fn surer(data: &mut RunData) {
    for layer in &mut data.layers {
        layer.entropy.as_mut().unwrap().iter_mut().for_each(|entropy| *entropy /= 2.0);
        layer.margin.as_mut().unwrap().fill(0.25);
    }
}

/// Wide at chance is not wide: where there is something to see, at every layer the interval of the row that is
/// furthest from its chance level is narrower than that distance, and does not reach to it.
#[test]
fn wide_intervals_are_narrower_than_effects() {
    let options = Options { resamples: 400, seed: 5 };
    let traces = [planted(1), one_hot(1)].map(|data| analyze_data(&data, &options));
    let mut blind = Vec::new();
    for (metric, _) in WIDE {
        let sees = |analysis: &Analysis| {
            let rows: Vec<&MetricRow> = analysis
                .rows_of(metric)
                .filter(|row| row.domain.is_none())
                .filter(|row| row.phase.is_none() || *metric == "distinct_experts")
                .collect();
            let layers: BTreeSet<Option<u16>> = rows.iter().map(|row| row.layer).collect();
            let effect = |row: &&&MetricRow| (row.value - row.chance.unwrap()).abs();
            let furthest = |layer: &Option<u16>| {
                let of_layer = rows.iter().filter(|row| row.layer == *layer);
                *of_layer.max_by(|a, b| effect(a).total_cmp(&effect(b))).unwrap()
            };
            let seen = |row: &MetricRow| {
                let ((low, high), chance) = (row.interval.unwrap(), row.chance.unwrap());
                high - low < (row.value - chance).abs() && !(low..=high).contains(&chance)
            };
            layers.iter().map(furthest).all(seen)
        };
        if !traces.iter().any(sees) {
            blind.push(*metric);
        }
    }
    assert!(blind.is_empty(), "{blind:?}");
}
