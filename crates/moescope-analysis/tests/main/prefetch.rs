//! Next-layer prefetch on layers of which one foretells the other.

use moescope_analysis::simulate::prefetch::Transitions;
use moescope_analysis::{Analysis, Index, LayerData, NO_EXPERT, Options, RunData, analyze_data};

use crate::support::{SMALL, close, run, uniform, uniformly};

#[test]
fn by_hand() {
    // Expert 0 goes with 1 and 2, 1 and 0: P(1|0) = 1, P(2|0) = P(0|0) = 1/2. Expert 1 once with 2, 3.
    let from = LayerData::from_ids(0, 2, 1, vec![0, 0, 1, 0, NO_EXPERT]);
    let to = LayerData::from_ids(1, 4, 2, vec![1, 2, 1, 0, 2, 3, 3, 1, 0, 1]);
    let transitions = Transitions::learn(&from, &to, 0..3);
    let mut found = Vec::new();
    transitions.rank(&from, &to, 2..5, |token, places| found.push((token, places.to_vec())));
    // Of the third token 2 and 3 are first. The fourth is foretold 1, 0, 2, 3: equal ones in order.
    // For the fifth there is nothing to foretell from.
    assert_eq!(found, [(2, vec![0, 1]), (3, vec![3, 0])]);
}

fn value(analysis: &Analysis, metric: &str, layer: Option<u16>, brought: u32) -> f64 {
    analysis.row(metric, layer, Some(Index::Size(brought)), None, None).unwrap().value
}

#[test]
fn a_layer_that_is_foretold() {
    // Expert e at layer 0 means e + 1 at layer 1.
    let mut data = uniform(SMALL, 3);
    data.layers[1].ids = data.layers[0].ids.iter().map(|id| (id + 1) % 16).collect();
    let analysis = analyze_data(&data, &Options::default());
    // Each expert brings one partner by chance, so the two are first nearly always.
    assert!(value(&analysis, "prefetch_hit_rate", Some(1), 2) > 0.99);
    assert!(value(&analysis, "prefetch_wasted", Some(1), 2) < 0.01);
    close(value(&analysis, "prefetch_hit_rate", None, 16), 1.0);
    close(value(&analysis, "prefetch_wasted", None, 16), 1.0 - 2.0 / 16.0);
    assert!(analysis.rows_of("prefetch_hit_rate").all(|row| row.layer != Some(0)));
    // Each domain by itself, over all layers.
    for domain in SMALL.domains {
        let size = Some(Index::Size(2));
        let row = analysis.row("prefetch_hit_rate", None, size, Some(domain), None).unwrap();
        assert!(row.value > 0.98 && row.interval.is_some(), "{row:?}");
        assert_eq!(row.chance, Some(2.0 / 16.0));
    }
    let curve: Vec<f64> =
        (1..=16).map(|p| value(&analysis, "prefetch_hit_rate", None, p)).collect();
    assert!(curve.is_sorted());
}

#[test]
fn chance_on_uniform_routing() {
    let analysis = analyze_data(&uniform(SMALL, 8), &Options::default());
    for metric in ["prefetch_hit_rate", "prefetch_wasted"] {
        for row in analysis.rows_of(metric).filter(|row| row.index != Some(Index::Size(16))) {
            let (low, high) = row.interval.unwrap();
            let chance = row.chance.unwrap();
            // Two standard errors more than an interval of 95 %: 60 rows that hang together.
            let reach = high - low;
            assert!(low - reach / 2.0 < chance && chance < high + reach / 2.0, "{row:?}");
        }
    }
}

#[test]
fn half_a_run_foretells_nothing() {
    let layers = [0, 1].map(|number| LayerData::from_ids(number, 3, 1, vec![0, 1]));
    let data = RunData::from_ids("one", &[("a", 2)], layers.to_vec()).unwrap();
    let analysis = analyze_data(&data, &Options::default());
    assert_eq!(analysis.rows_of("prefetch_hit_rate").count(), 0);
    // A single MoE layer has none before it.
    let shape = crate::support::Shape { layers: 1, ..SMALL };
    let data = run(shape, 1, |_, _, _, rng, chosen| uniformly(rng, 16, 2, chosen));
    assert_eq!(analyze_data(&data, &Options::default()).rows_of("prefetch_wasted").count(), 0);
}

/// Recall, exact sets and hits of p, by plain loops over the tokens of the half that measures.
fn plain(data: &RunData, place: usize) -> (f64, f64, Vec<f64>) {
    let groups = moescope_analysis::Groups::new(data);
    let (from, to) = (&data.layers[place], &data.layers[place + 1]);
    let mut follows = vec![vec![0.0f32; to.experts]; from.experts];
    let mut times = vec![0.0f32; from.experts];
    let tokens_of = |second: bool| {
        let sequences = data.sequences.iter().enumerate();
        let half = sequences
            .filter(|(at, _)| groups.is_second_half(groups.of_sequence(*at)) == second)
            .flat_map(|(_, sequence)| sequence.start..sequence.end);
        half.collect::<Vec<usize>>()
    };
    for token in tokens_of(false) {
        for &i in from.selected(token) {
            times[usize::from(i)] += 1.0;
            for &j in to.selected(token) {
                follows[usize::from(i)][usize::from(j)] += 1.0;
            }
        }
    }
    let (mut found, mut exact, mut tokens, mut needed) = (0, 0, 0, 0);
    let mut hits = vec![0; to.experts];
    for token in tokens_of(true) {
        let (given, selected) = (from.selected(token), to.selected(token));
        if given.is_empty() || selected.is_empty() {
            continue;
        }
        let mut order: Vec<usize> = (0..to.experts).collect();
        let score = |j: usize| -> f32 {
            let share = |i: &u16| follows[usize::from(*i)][j] / times[usize::from(*i)].max(1.0);
            given.iter().map(share).fold(0.0, |sum, share| sum + share)
        };
        order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
        let place_of = |j: &u16| order.iter().position(|other| *other == usize::from(*j)).unwrap();
        let within = selected.iter().filter(|j| place_of(j) < to.top_k).count();
        tokens += 1;
        needed += selected.len();
        found += within;
        exact += usize::from(within == selected.len());
        for (p, hits) in (1..).zip(&mut hits) {
            *hits += selected.iter().filter(|j| place_of(j) < p).count();
        }
    }
    let share = |part: usize, whole: usize| part as f64 / whole as f64;
    (
        share(found, needed),
        share(exact, tokens),
        hits.into_iter().map(|hits| share(hits, needed)).collect(),
    )
}

#[test]
fn recall_and_prefetch_are_one_simulation() {
    // Layers that follow each other now and then, and tokens without routing at one of them.
    let mut data = uniform(crate::support::Shape { layers: 3, ..SMALL }, 5);
    let mut rng = moescope_analysis::rng::Rng::new(9);
    for token in 0..data.len() {
        let before = data.layers[0].ids[2 * token];
        if rng.unit() < 0.3 && data.layers[1].ids[2 * token + 1] != before {
            data.layers[1].ids[2 * token] = before;
        }
        if rng.unit() < 0.1 {
            let layer = rng.below(3);
            data.layers[layer].ids[2 * token..2 * token + 2].fill(NO_EXPERT);
        }
    }
    let analysis = analyze_data(&data, &Options::default());
    for place in 0..2 {
        let (recall, exact, hits) = plain(&data, place);
        let layer = place as u16;
        close(analysis.value("next_layer_recall", Some(layer)).unwrap(), recall);
        close(analysis.value("next_layer_exact", Some(layer)).unwrap(), exact);
        for (p, hits) in (1..).zip(hits) {
            close(value(&analysis, "prefetch_hit_rate", Some(layer + 1), p), hits);
        }
    }
}
