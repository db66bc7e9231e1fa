//! Traces whose answer is exact, looked at by every family of metrics.

use moescope_analysis::{Analysis, Index, LayerData, RunData, analyze_data};

use crate::support::{FAST, SMALL, Shape, close, run};

fn value(analysis: &Analysis, metric: &str, layer: Option<u16>, index: Option<Index>) -> f64 {
    let row = analysis.row(metric, layer, index, None, None);
    row.unwrap_or_else(|| panic!("{metric} has no such row")).value
}

#[test]
fn one_dead_expert_and_fifteen_alike() {
    // Two after the other of fifteen, round and round: each as often as the others in every sequence.
    let shape = Shape { tokens: 30, ..SMALL };
    let data = run(shape, 1, |_, _, position, _, chosen| {
        chosen.extend([2 * position, 2 * position + 1].map(|expert| (expert % 15) as u16));
    });
    let analysis = analyze_data(&data, &FAST);
    let of = |metric, index| value(&analysis, metric, Some(1), index);
    let fifteen = 15.0f64;
    for (metric, expected) in [
        ("dead_experts", 1.0),
        ("imbalance", 16.0 / 15.0),
        ("max_vio", 1.0 / 15.0),
        // One of 16 is 1 below the mean, 15 are 1/15 above.
        ("coefficient_of_variation", ((1.0 + 15.0 / 225.0) / 16.0f64).sqrt()),
        ("gini", 1.0 / 16.0),
        ("normalised_entropy", fifteen.ln() / 16.0f64.ln()),
        ("effective_experts", 15.0),
    ] {
        close(of(metric, None), expected);
    }
    close(of("utilisation", Some(Index::Expert(15))), 0.0);
    close(of("utilisation", Some(Index::Expert(3))), 16.0 / 15.0);
    // Half of the selections take 7.5 of the fifteen, nine tenths 13.5.
    close(of("coverage", Some(Index::Percentile(50))), 8.0 / 16.0);
    close(of("coverage", Some(Index::Percentile(90))), 14.0 / 16.0);
    for (size, share) in [(5, 5.0 / 15.0), (15, 1.0), (16, 1.0)] {
        close(of("lorenz", Some(Index::Size(size))), share);
        close(of("hit_rate_static", Some(Index::Size(size))), share);
    }
    // In order on two GPUs: eight of fifteen on the first.
    close(of("gpu_imbalance", Some(Index::Size(2))), 16.0 / 15.0);
    close(of("batch_working_set", Some(Index::Size(8))), 2.0);
    close(of("working_set", Some(Index::Size(16))), 15.0);
}

#[test]
fn a_cycle_that_defeats_recency() {
    // Two of eight experts after the other, ten times round, at both layers.
    let data = run(SMALL, 1, |_, _, position, _, chosen| {
        let first = 2 * (position % 4) as u16;
        chosen.extend([first, first + 1]);
    });
    let analysis = analyze_data(&data, &FAST);
    let of = |metric, layer, size| value(&analysis, metric, layer, Some(Index::Size(size)));
    // The first round is new, the other nine are hits where all eight fit.
    let warm = 9.0 / 10.0;
    for layer in [Some(0), Some(1), None] {
        // What was used last is what is needed last: recency is no use until everything fits.
        for size in 1..7 {
            close(of("hit_rate_lru", layer, size), 0.0);
        }
        // The first of the two counts as used later, and just stays.
        close(of("hit_rate_lru", layer, 7), warm / 2.0);
        for policy in ["hit_rate_lru", "hit_rate_lfu"] {
            close(of(policy, layer, 8), warm);
            close(of(policy, layer, 16), warm);
        }
        // A fixed set hits its share, and knowing the future is worth no more in a steady cycle but for
        // what is there at the start.
        for size in 1..=8 {
            let share = f64::from(size) / 8.0;
            close(of("hit_rate_static", layer, size), share);
            let bound = of("hit_rate_belady", layer, size);
            assert!((share - 1e-9..=share + 0.1).contains(&bound), "{size}: {bound}");
        }
        close(of("hit_rate_belady", layer, 8), 1.0);
    }
    // One cache for both layers: the same cycle over 16 experts.
    for size in [2, 8, 14] {
        close(of("hit_rate_global_lru", None, size), 0.0);
        close(of("hit_rate_global_static", None, size), f64::from(size) / 16.0);
        let bound = of("hit_rate_global_belady", None, size);
        let share = f64::from(size) / 16.0;
        assert!((share - 1e-9..=share + 0.1).contains(&bound), "{size}: {bound}");
    }
    for policy in ["hit_rate_global_lru", "hit_rate_global_lfu"] {
        close(of(policy, None, 16), warm);
    }
    close(of("hit_rate_global_belady", None, 16), 1.0);
    // And it can all be foretold: the layers choose alike.
    close(value(&analysis, "next_layer_recall", Some(0), None), 1.0);
    close(of("prefetch_hit_rate", Some(1), 2), 1.0);
    close(of("prefetch_hit_rate", Some(1), 1), 0.5);
    close(of("prefetch_wasted", Some(1), 2), 0.0);
    close(of("prefetch_wasted", Some(1), 8), 0.75);
    // First choices are 0, 2, 4, 6 in both: two bits.
    close(value(&analysis, "path_information", Some(0), None), 2.0);
    // Each expert has one partner in seven others it could meet among fifteen: P = 1, lift T/N = 4.
    let pair = Some(Index::Pair(0, 1));
    close(value(&analysis, "coactivation", Some(0), pair), 1.0);
    close(value(&analysis, "coactivation_lift", Some(0), pair), 4.0);
}

#[test]
fn domains_with_experts_of_their_own() {
    // Each domain has two experts, which its tokens take always: 2d and 2d + 1.
    let data = run(SMALL, 1, |domain, _, _, _, chosen| {
        let first = 2 * domain as u16;
        chosen.extend([first, first + 1]);
    });
    let analysis = analyze_data(&data, &FAST);
    for (place, domain) in (0u16..).zip(SMALL.domains) {
        for expert in 0..16 {
            let row = analysis.row(
                "domain_specialisation",
                Some(0),
                Some(Index::Expert(expert)),
                Some(domain),
                None,
            );
            close(row.unwrap().value, f64::from(u8::from(expert / 2 == place)));
        }
        let alone = |metric| analysis.row(metric, Some(1), None, Some(domain), None).unwrap().value;
        close(alone("effective_experts"), 2.0);
        close(alone("dead_experts"), 14.0);
        // Within the domain all is one: nothing is known of the next choice that was not known.
        let path = analysis.row("path_information", Some(0), None, Some(domain), None).unwrap();
        close(path.value, 0.0);
    }
    // Nothing in common: ln 2 for each of three pairs.
    let divergences: Vec<_> =
        analysis.rows_of("domain_divergence").filter(|row| row.layer == Some(0)).collect();
    assert_eq!(divergences.len(), 3);
    for row in divergences {
        close(row.value, std::f64::consts::LN_2);
    }
    // Over all of them, the first choice tells the domain, and with it the next: log2 3 bits.
    close(value(&analysis, "path_information", Some(0), None), 3f64.log2());
    close(value(&analysis, "effective_experts", Some(0), None), 6.0);
    // A sequence reuses its experts always.
    close(value(&analysis, "reuse", Some(0), Some(Index::Lag(17))), 1.0);
    close(value(&analysis, "working_set", Some(0), Some(Index::Size(32))), 2.0);
}

/// Weights, entropies and margins that are the same for every token come out as they went in.
#[test]
fn a_router_that_is_always_as_sure() {
    let layer = LayerData {
        weights: Some([0.75, 0.25].repeat(120)),
        entropy: Some(vec![0.5; 120]),
        margin: Some(vec![0.125; 120]),
        output_norms: Some([1.0, 3.0].repeat(120)),
        ..LayerData::from_ids(4, 8, 2, [5, 6].repeat(120))
    };
    let data = RunData::from_ids("sure", &[("a", 10); 12], vec![layer]).unwrap();
    let analysis = analyze_data(&data, &FAST);
    let row = |metric, index| analysis.row(metric, Some(4), index, None, None).unwrap();
    for (metric, index, expected) in [
        ("router_entropy", None, 0.5),
        ("router_margin", None, 0.125),
        ("weight_by_rank", Some(Index::Rank(0)), 0.75),
        ("weight_by_rank", Some(Index::Rank(1)), 0.25),
        ("saliency_reap", Some(Index::Expert(5)), 0.75),
        ("saliency_reap", Some(Index::Expert(6)), 0.75),
        ("saliency_reap", Some(Index::Expert(0)), 0.0),
        ("saliency_ean", Some(Index::Expert(6)), 360.0),
        // Six experts were never selected and go first.
        ("pruned_traffic", Some(Index::Size(6)), 0.0),
        ("pruned_traffic", Some(Index::Size(7)), 0.5),
        ("pruned_saliency", Some(Index::Size(7)), 0.5),
    ] {
        let row = row(metric, index);
        close(row.value, expected);
        let (low, high) = row.interval.unwrap();
        // EAN is a sum; of what never happened nobody is sure that it never does.
        let exact = row.unit == "norm" && metric == "saliency_reap" || row.value > 0.0;
        if exact && metric != "saliency_ean" {
            assert!((low - expected).abs() < 1e-6 && (high - expected).abs() < 1e-6, "{row:?}");
        }
    }
}
