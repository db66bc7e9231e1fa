//! Every pair of experts instead of the strongest.

use moescope_analysis::{
    ALL_PAIRS, Analysis, Index, LayerData, Metric, Options, RunData, analyze_data, analyze_metrics,
};

use crate::support::{FAST, SMALL, close, run, uniform, uniformly};

fn all(data: &RunData, options: &Options) -> Analysis {
    analyze_metrics(data, options, ALL_PAIRS)
}

fn value(analysis: &Analysis, metric: &str, layer: u16, i: u16, j: u16) -> Option<f64> {
    Some(analysis.row(metric, Some(layer), Some(Index::Pair(i, j)), None, None)?.value)
}

#[test]
fn pairs_by_hand() {
    // Layer 0: {0, 1}, {0, 1}, {0, 2}, {3, 1}; the first choices go on to 2, 2, 3, 3.
    let layers = vec![
        LayerData::from_ids(0, 4, 2, vec![0, 1, 1, 0, 0, 2, 3, 1]),
        LayerData::from_ids(1, 5, 1, vec![2, 2, 3, 3]),
    ];
    let data = RunData::from_ids("pairs", &[("a", 4)], layers).unwrap();
    let found = all(&data, &FAST);
    let conditional = |i, j| value(&found, "coactivation", 0, i, j);
    assert_eq!(conditional(0, 1), Some(2.0 / 3.0));
    assert_eq!(conditional(2, 0), Some(1.0));
    assert_eq!(conditional(2, 3), Some(0.0));
    // All 12 ordered pairs of layer 0; layer 1 selects one expert per token and has none.
    assert_eq!(found.rows_of("coactivation").count(), 12);
    close(value(&found, "coactivation_lift", 0, 0, 1).unwrap(), 2.0 * 4.0 / 9.0);
    assert_eq!(found.rows_of("coactivation_lift").count(), 6);
    // First choices 0, 1, 0, 3: from 0 one token goes to 2 and one to 3.
    let path = |i, j| value(&found, "expert_path", 0, i, j);
    assert_eq!((path(0, 2), path(0, 3), path(0, 0)), (Some(0.5), Some(0.5), Some(0.0)));
    assert_eq!((path(1, 2), path(3, 3)), (Some(1.0), Some(1.0)));
    // From three of four experts, since 2 is never first, to five.
    assert_eq!(found.rows_of("expert_path").count(), 15);
}

/// The same numbers as in the tables behind the figures, and what was planted stands out.
#[test]
fn as_the_tables_of_figures_have_it() {
    let data = run(SMALL, 9, |_, _, _, rng, chosen| {
        if rng.unit() < 0.4 {
            chosen.extend([4, 11]);
        }
        uniformly(rng, 16, 2, chosen);
    });
    let found = all(&data, &Options::default());
    let whole = analyze_data(&data, &FAST);
    let table = &whole.structure.coactivation[0];
    for row in found.rows_of("coactivation_lift").filter(|row| row.layer == Some(0)) {
        let Some(Index::Pair(i, j)) = row.index else { panic!("{row:?}") };
        close(row.value, table.lift(i.into(), j.into()).unwrap());
    }
    let planted = found.rows_of("coactivation_lift").max_by(|a, b| a.value.total_cmp(&b.value));
    assert_eq!(planted.unwrap().index, Some(Index::Pair(4, 11)));
    let transitions = &whole.structure.transitions[0];
    for row in found.rows_of("expert_path") {
        let Some(Index::Pair(i, j)) = row.index else { panic!("{row:?}") };
        close(row.value, transitions.conditional(i.into(), j.into()).unwrap());
    }
}

/// Most of 120 pairs of uniform routing hold the chance level, and none is known better than its counts
/// allow.
#[test]
fn uniform_pairs_are_at_chance() {
    for metric in ALL_PAIRS {
        let (mut held, mut all) = (0usize, 0usize);
        for seed in 0..10 {
            let data = uniform(SMALL, 300 + seed);
            let found = analyze_metrics(&data, &Options { resamples: 400, seed: 5 }, [metric]);
            for row in &found.rows {
                let (low, high) = row.interval.unwrap();
                held += usize::from((low..=high).contains(&row.chance.unwrap()));
                all += 1;
            }
        }
        let share = held as f64 / all as f64;
        assert!((0.94..=0.99).contains(&share), "{}: {held} of {all}", metric.name);
    }
}

/// Tables that are counted in parts are counted whole.
#[test]
fn a_wide_layer_in_parts() {
    let data = run(
        crate::support::Shape {
            layers: 1,
            experts: 900,
            top_k: 3,
            sequences_per_domain: 30,
            tokens: 6,
            ..SMALL
        },
        5,
        |_, _, _, rng, chosen| uniformly(rng, 900, 3, chosen),
    );
    let lift: Vec<&Metric> = ALL_PAIRS.iter().filter(|m| m.name == "coactivation_lift").collect();
    let found = analyze_metrics(&data, &Options { resamples: 5, seed: 1 }, lift);
    // Three pairs of each token: sum of N_ij = lift N_i N_j / T.
    let mut counts = vec![0.0; 900];
    data.layers[0].ids.iter().for_each(|&id| counts[usize::from(id)] += 1.0);
    let pairs: f64 = found
        .rows
        .iter()
        .map(|row| match row.index {
            Some(Index::Pair(i, j)) => row.value * counts[usize::from(i)] * counts[usize::from(j)],
            _ => panic!("{row:?}"),
        })
        .sum();
    close(pairs / data.len() as f64, 3.0 * data.len() as f64);
}
