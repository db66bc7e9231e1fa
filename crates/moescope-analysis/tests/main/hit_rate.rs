//! Hit rates as metrics: rows, chance levels, intervals.

use moescope_analysis::simulate::cache::{ColdStart, UniformRuns};
use moescope_analysis::{Analysis, Index, LayerData, Options, RunData, analyze_data};
use moescope_trace::Phase::{Decode, Prefill};

use crate::support::{FAST, SMALL, Shape, close, run, uniform, uniformly};

const POLICIES: [&str; 4] = ["hit_rate_lru", "hit_rate_lfu", "hit_rate_static", "hit_rate_belady"];

fn curve(analysis: &Analysis, metric: &str, layer: Option<u16>, phase: Option<&str>) -> Vec<f64> {
    let rows = analysis.rows_of(metric);
    rows.filter(|row| row.layer == layer && row.phase == phase && row.domain.is_none())
        .map(|row| row.value)
        .collect()
}

/// Two sequences, three experts, one per token; the second sequence generates its last two tokens.
fn tiny() -> RunData {
    let layer = LayerData::from_ids(3, 3, 1, vec![0, 0, 1, 0, 2, 1, 2, 1]);
    let mut data = RunData::from_ids("tiny", &[("a", 4), ("a", 4)], vec![layer]).unwrap();
    data.tokens.phase = [vec![Prefill; 6], vec![Decode; 2]].concat();
    data
}

#[test]
fn by_hand() {
    let analysis = analyze_data(&tiny(), &FAST);
    let of = |metric, phase| curve(&analysis, metric, Some(3), phase);
    // 0 0 1 0: the second 0 hits always, the last from two on. 2 1 2 1: the last two from two on.
    assert_eq!(of("hit_rate_lru", None), [1.0 / 8.0, 4.0 / 8.0, 4.0 / 8.0]);
    // Counts keep 0 in a cache of one; 2 and 1 take turns.
    assert_eq!(of("hit_rate_lfu", None), [2.0 / 8.0, 4.0 / 8.0, 4.0 / 8.0]);
    // The first sequence says 0, 1, 2 and the second 1, 2, 0; each is measured with the other's.
    assert_eq!(of("hit_rate_static", None), [1.0 / 8.0, 3.0 / 8.0, 1.0]);
    // 0 0 . 0 and then one of 2 and 1 kept from its first use.
    assert_eq!(of("hit_rate_belady", None), [5.0 / 8.0, 1.0, 1.0]);
    // The generated tokens 2 1, cold and after the prompt 2 1.
    assert_eq!(of("hit_rate_lru", Some("decode")), [0.0, 0.0, 0.0]);
    assert_eq!(of("hit_rate_lru_warm", Some("decode")), [0.0, 1.0, 1.0]);
    assert_eq!(of("hit_rate_belady", Some("decode")), [0.5, 1.0, 1.0]);
    assert!(of("hit_rate_lru_warm", None).is_empty());
    let warm = curve(&analysis, "hit_rate_global_lru_warm", None, Some("decode"));
    assert_eq!(warm, of("hit_rate_lru_warm", Some("decode")));
    // One layer: the model is that layer, and so is the shared cache.
    for metric in POLICIES {
        let layer = of(metric, None);
        assert_eq!(curve(&analysis, metric, None, None), layer, "{metric}");
        let shared = metric.replace("rate", "rate_global");
        assert_eq!(curve(&analysis, &shared, None, None), layer, "{shared}");
    }
}

#[test]
fn a_shared_cache_after_the_prompt() {
    // Two layers of two experts, one each: 0 and 0, 1 and 0, and then 0 and 0 is generated.
    let layers = [vec![0, 1, 0], vec![0, 0, 0]];
    let layers =
        (0..).zip(layers).map(|(layer, ids)| LayerData::from_ids(layer, 2, 1, ids)).collect();
    let mut data = RunData::from_ids("tiny", &[("a", 3)], layers).unwrap();
    data.tokens.phase[2] = Decode;
    let analysis = analyze_data(&data, &FAST);
    let of = |metric, phase| curve(&analysis, metric, None, phase);
    // The prompt leaves 0 of the second layer before 1 and 0 of the first: of two, the second layer hits.
    assert_eq!(of("hit_rate_global_lru_warm", Some("decode")), [1.0 / 2.0, 1.0]);
    assert_eq!(of("hit_rate_global_lru", Some("decode")), [0.0, 0.0]);
    // Over all: the second token's 0 of the second layer, too.
    assert_eq!(of("hit_rate_global_lru", None), [2.0 / 6.0, 3.0 / 6.0]);
    assert!(of("hit_rate_global_lru_warm", None).is_empty());
}

#[test]
fn domains_have_rows_of_their_own() {
    // Sequences of "a" take one expert always, those of "b" four in turn.
    let ids = |sequence: u16| {
        (0..8).map(move |token| if sequence.is_multiple_of(2) { 3 } else { token % 4 })
    };
    let layer = LayerData::from_ids(0, 4, 1, (0..24).flat_map(ids).collect());
    let sequences = ["a", "b"].map(|domain| (domain, 8)).repeat(12);
    let mut data = RunData::from_ids("two", &sequences, vec![layer]).unwrap();
    for sequence in &data.sequences {
        data.tokens.phase[sequence.start + 4..sequence.end].fill(Decode);
    }
    let analysis = analyze_data(&data, &FAST);
    let of = |metric, domain, phase, size| {
        let row = analysis.row(metric, None, Some(Index::Size(size)), Some(domain), phase).unwrap();
        let (low, high) = row.interval.unwrap();
        assert!(low <= row.value && row.value <= high && row.chance.is_some(), "{row:?}");
        row.value
    };
    for metric in ["hit_rate_lru", "hit_rate_global_lru"] {
        close(of(metric, "a", None, 1), 7.0 / 8.0);
        close(of(metric, "b", None, 3), 0.0);
        close(of(metric, "b", None, 4), 4.0 / 8.0);
    }
    for metric in ["hit_rate_lru_warm", "hit_rate_global_lru_warm"] {
        close(of(metric, "a", Some("decode"), 1), 1.0);
        close(of(metric, "b", Some("decode"), 4), 1.0);
    }
    // Five of eight selections of all are of 3, which is pinned first.
    for metric in ["hit_rate_static", "hit_rate_global_static"] {
        close(of(metric, "a", None, 1), 1.0);
        close(of(metric, "b", None, 1), 2.0 / 8.0);
    }
    // Layer by layer there are none.
    assert!(
        analysis.rows_of("hit_rate_lru").all(|row| row.layer.is_none() || row.domain.is_none())
    );
}

#[test]
fn what_ids_alone_do_not_allow() {
    let analysis = analyze_data(&uniform(SMALL, 1), &FAST);
    let warm = analysis.absent.iter().find(|absent| absent.metric == "hit_rate_lru_warm").unwrap();
    assert_eq!(warm.reason, "not recorded: generated tokens after prompts");
    // A single sequence has no other half.
    let layer = LayerData::from_ids(0, 3, 1, vec![0, 1]);
    let data = RunData::from_ids("one", &[("a", 2)], vec![layer]).unwrap();
    let analysis = analyze_data(&data, &FAST);
    assert!(analysis.absent.iter().any(|absent| absent.metric == "hit_rate_static"));
    assert_eq!(curve(&analysis, "hit_rate_lru", None, None), [0.0; 3]);
}

#[test]
fn the_bound_is_a_bound() {
    // Locality, skew and noise, in layers of different sizes.
    let mut layers = Vec::new();
    for (number, experts) in [(0, 16), (1, 8)] {
        let shape = Shape { layers: 1, experts, ..SMALL };
        let mut last = vec![0, 1];
        let data = run(shape, 5, |_, _, _, rng, chosen| {
            if rng.unit() < 0.4 {
                chosen.push(last[0]);
            } else if rng.unit() < 0.4 {
                chosen.push(rng.below(3) as u16);
            }
            uniformly(rng, experts, 2, chosen);
            last.clone_from(chosen);
        });
        let ids = data.layers[0].ids.clone();
        layers.push(LayerData::from_ids(number, experts, 2, ids));
    }
    let sequences: Vec<(&str, usize)> = vec![("a", 40); 45];
    let mut data = RunData::from_ids("mixed", &sequences, layers).unwrap();
    for sequence in &data.sequences {
        data.tokens.phase[sequence.start + 25..sequence.end].fill(Decode);
    }
    let analysis = analyze_data(&data, &FAST);
    for phase in [None, Some("decode")] {
        for layer in [Some(0), Some(1), None] {
            let bound = curve(&analysis, "hit_rate_belady", layer, phase);
            let sizes = if layer == Some(1) { 8 } else { 16 };
            assert_eq!(bound.len(), sizes);
            close(bound[sizes - 1], 1.0);
            for metric in ["hit_rate_lru", "hit_rate_lfu", "hit_rate_static", "hit_rate_lru_warm"] {
                let curve = curve(&analysis, metric, layer, phase);
                assert!(!curve.is_empty() || (metric == "hit_rate_lru_warm" && phase.is_none()));
                for (hits, bound) in curve.iter().zip(&bound) {
                    assert!(*hits <= bound + 1e-12, "{metric} {layer:?} {phase:?}");
                }
                assert!(curve.is_sorted(), "{metric}: a larger cache has no fewer hits");
            }
        }
    }
    // The shared cache: 24 experts, sizes in steps of two layers.
    let sizes = |metric: &str| -> Vec<(u32, f64)> {
        let size = |index| match index {
            Some(Index::Size(size)) => size,
            other => panic!("{other:?}"),
        };
        analysis.rows_of(metric).map(|row| (size(row.index), row.value)).collect()
    };
    let bound = sizes("hit_rate_global_belady");
    assert_eq!(bound.iter().map(|(size, _)| *size).max(), Some(32));
    for metric in ["hit_rate_global_lru", "hit_rate_global_lfu", "hit_rate_global_static"] {
        for (size, hits) in sizes(metric) {
            let bound = bound.iter().find(|(other, _)| *other == size).unwrap().1;
            assert!(hits <= bound + 1e-12, "{metric} {size}");
        }
    }
    // Where sizes can be moved between layers, knowing the future gains by it.
    let even = curve(&analysis, "hit_rate_belady", None, None);
    let shared: Vec<f64> = bound.iter().map(|(_, hits)| *hits).collect();
    assert!(shared.iter().zip(&even).all(|(shared, even)| *shared >= even - 1e-12));
}

#[test]
fn uniform_routing_is_at_chance() {
    let shape = Shape { sequences_per_domain: 40, ..SMALL };
    let mut data = uniform(shape, 11);
    for sequence in &data.sequences {
        data.tokens.phase[sequence.start + 20..sequence.end].fill(Decode);
    }
    let analysis = analyze_data(&data, &Options { resamples: 400, seed: 3 });
    for metric in ["hit_rate_lru", "hit_rate_lfu", "hit_rate_static", "hit_rate_lru_warm"] {
        let (mut held, mut rows) = (0.0, 0.0);
        for row in analysis.rows_of(metric).filter(|row| row.layer.is_some()) {
            let (low, high) = row.interval.unwrap();
            let chance = row.chance.unwrap();
            rows += 1.0;
            held += f64::from(u8::from(low - 1e-9 <= chance && chance <= high + 1e-9));
        }
        // Sizes of one curve rise and fall together, so few of these are independent.
        assert!(held / rows > 0.85, "{metric}: {held} of {rows}");
    }
    for row in analysis.rows_of("hit_rate_belady").filter(|row| row.layer.is_none()) {
        assert!((row.value - row.chance.unwrap()).abs() < 0.02, "{row:?}");
    }
}

#[test]
fn cold_start_by_hand() {
    // Two of three experts: none held before the first token, two before the second; the second brings
    // the third expert with probability 2/3.
    let cold = ColdStart::new(3, 2, 10);
    close(cold.held(1, 1), 0.0);
    close(cold.held(2, 2), 2.0);
    close(cold.held(3, 3), 2.0 + 2.0 + 2.0 / 3.0);
    close(cold.held(1, 3), 2.0);
    // Beyond what was asked for every expert is taken as seen.
    close(ColdStart::new(3, 3, 5).held(3, 4), 9.0);
    close(cold.held(0, 3), 0.0);
    // All experts for every token: the bound hits what it holds.
    let bound = UniformRuns::new(&[(4, 4)], &[(0, 50)]).belady();
    for (size, share) in (1..).zip(bound) {
        close(share, f64::from(size) / 4.0);
    }
}
