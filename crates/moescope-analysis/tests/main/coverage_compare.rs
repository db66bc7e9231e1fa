//! How often intervals of metrics of two runs hold what they should: the chance level, for two runs of the
//! same prompts that have nothing else to do with each other.

use std::collections::BTreeMap;

use moescope_analysis::rng::Rng;
use moescope_analysis::{COMPARISON_METRICS, MetricRow, Options, RunData, compare};
use moescope_trace::Phase;
use moescope_trace::manifest::TimingMode;

use crate::support::{SMALL, Shape, steps, uniform};

/// Sets are few enough that the same one is no rare event: one in 28.
const SHAPE: Shape = Shape { layers: 3, tokens: 60, experts: 8, top_k: 2, ..SMALL };

/// Pairs of runs looked at.
const PAIRS: u64 = 150;

/// A run at chance: uniform routing, and times and memory around the same level in all runs.
fn at_chance(seed: u64) -> RunData {
    let mut data = uniform(SHAPE, 5000 + seed);
    data.manifest.settings.timing_mode = TimingMode::EndToEnd;
    data.tokens.token_id.fill(1);
    let mut rng = Rng::new(seed ^ 0xC0FFEE);
    let mut around = |level: f64| (level * (1.0 + rng.unit())) as u64;
    let (mut passes, mut memory) = (Vec::new(), Vec::new());
    for sequence in data.sequences.clone() {
        let prompt = sequence.end - 16;
        data.tokens.step[sequence.start..prompt].fill(passes.len() as u32);
        passes.push((Phase::Prefill, (prompt - sequence.start) as u32, around(1e6)));
        for token in prompt..sequence.end {
            data.tokens.phase[token] = Phase::Decode;
            data.tokens.step[token] = passes.len() as u32;
            passes.push((Phase::Decode, 1, around(1e5)));
        }
        memory.resize(passes.len(), Some(around(1e8)));
    }
    data.steps = steps(&passes);
    data.steps.bytes_in_use = memory.clone();
    data.steps.bytes_reserved = memory.clone();
    data.steps.rss_bytes = memory;
    data.check().unwrap();
    data
}

#[test]
fn unrelated_runs_are_at_chance() {
    let options = Options { resamples: 400, seed: 5 };
    // Intervals that hold the chance level, and all of them, by metric and kind of row.
    let mut held: BTreeMap<(&str, &str), [usize; 2]> = BTreeMap::new();
    for seed in 0..PAIRS {
        let comparison = compare(&at_chance(2 * seed), &at_chance(2 * seed + 1), &options);
        for metric in COMPARISON_METRICS {
            for (kind, domain, phase) in [
                ("all", None, None),
                ("phase", None, Some("prefill")),
                ("phase", None, Some("decode")),
                ("domain", Some("english"), None),
            ] {
                let rows: Vec<&MetricRow> = comparison
                    .rows
                    .iter()
                    .filter(|row| row.metric == metric.name && row.phase == phase)
                    .filter(|row| row.domain.as_deref() == domain)
                    .collect();
                // Of every layer the middle one of its rows, so that what is counted is independent; the
                // mean over layers for itself.
                for of_layer in rows.chunk_by(|a, b| a.layer == b.layer) {
                    let row = of_layer[of_layer.len() / 2];
                    let (Some((low, high)), Some(chance)) = (row.interval, row.chance) else {
                        continue;
                    };
                    let mean = row.layer.is_none() && rows.len() > 1;
                    let entry = held.entry((metric.name, if mean { "mean" } else { kind }));
                    let [inside, all] = entry.or_default();
                    *inside += usize::from((low..=high).contains(&chance));
                    *all += 1;
                }
            }
        }
    }
    let mut wrong = Vec::new();
    for ((metric, kind), [held, all]) in &held {
        // 95 %, give or take what chance does in one of 10,000 such counts.
        let (n, p) = (*all as f64, 0.95);
        let reach = 3.72 * (n * p * (1.0 - p)).sqrt();
        let line = format!("{metric:24} {kind:8} {held:4} of {all:4} {:6.3}", *held as f64 / n);
        println!("{line}");
        if (*held as f64 - n * p).abs() > reach {
            wrong.push(line);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Every metric that has a chance level is here, and those that can be split are seen split.
    for metric in COMPARISON_METRICS {
        let seen = held.keys().any(|(name, _)| *name == metric.name);
        assert_eq!(seen, !metric.chance.is_empty(), "{}", metric.name);
    }
    for metric in ["routing_overlap", "same_experts", "top1_flips"] {
        for kind in ["all", "phase", "domain", "mean"] {
            assert!(held.contains_key(&(metric, kind)), "{metric} {kind}");
        }
    }
}

/// Far from chance the interval of the shift is that of another set of prompts: it holds what the same two
/// models show on much more text.
#[test]
fn a_shift_that_is_there() {
    let skewed = |seed: u64, share: f64, sequences: usize| {
        let shape = Shape { layers: 1, sequences_per_domain: sequences, ..SHAPE };
        crate::support::run(shape, seed, |_, _, _, rng, chosen| {
            if rng.unit() < share {
                chosen.push(3);
            }
            crate::support::uniformly(rng, 8, 2, chosen);
        })
    };
    let options = Options { resamples: 400, seed: 5 };
    let shift = |seed: u64, sequences: usize| {
        let (a, b) = (skewed(seed, 0.0, sequences), skewed(seed + 7000, 0.3, sequences));
        compare(&a, &b, &options).overall("distribution_shift").unwrap().clone()
    };
    let expected = shift(1, 2000).value;
    let mut held = 0;
    for seed in 10..210 {
        let row = shift(seed, 15);
        assert!(row.value > 5.0 * row.chance.unwrap());
        let (low, high) = row.interval.unwrap();
        // The estimate is above the limit by its noise, as the chance level says.
        held += usize::from((low..=high).contains(&(expected + row.chance.unwrap())));
    }
    // 190 of 200, give or take four standard deviations.
    assert!((178..=200).contains(&held), "{held} of 200");
}
