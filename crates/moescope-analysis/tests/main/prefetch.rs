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
    // Of the fifth nothing is known: 0, 1, 2, 3.
    assert_eq!(found, [(2, vec![0, 1]), (3, vec![3, 0]), (4, vec![0, 1])]);
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
