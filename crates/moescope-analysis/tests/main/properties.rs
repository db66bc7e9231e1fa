//! What holds for any trace.

use moescope_analysis::{LayerData, MetricRow, RunData, analyze_data, balance_of, jensen_shannon};
use proptest::prelude::*;

use crate::support::FAST;

/// Any small run: sequences of any length in up to three domains, k distinct experts per token.
fn any_run() -> impl Strategy<Value = RunData> {
    (1usize..9, prop::collection::vec((0usize..3, 0usize..6), 0..9)).prop_flat_map(
        |(experts, sequences)| {
            let tokens: usize = sequences.iter().map(|(_, tokens)| tokens).sum();
            let order = Just((0..experts as u16).collect::<Vec<_>>()).prop_shuffle();
            (1..=experts, prop::collection::vec(order, tokens)).prop_map(move |(top_k, orders)| {
                let ids = orders.iter().flat_map(|order| order[..top_k].to_vec()).collect();
                let sequences: Vec<(&str, usize)> = sequences
                    .iter()
                    .map(|&(domain, tokens)| (["a", "b", "c"][domain], tokens))
                    .collect();
                let layer = LayerData::from_ids(0, experts, top_k, ids);
                RunData::from_ids("any", &sequences, vec![layer]).unwrap()
            })
        },
    )
}

fn sum<'a>(rows: impl Iterator<Item = &'a MetricRow>) -> f64 {
    rows.map(|row| row.value).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn rows_are_sound(data in any_run()) {
        let analysis = analyze_data(&data, &FAST);
        let layer = &data.layers[0];
        let (experts, top_k) = (layer.experts as f64, layer.top_k as f64);
        for row in &analysis.rows {
            prop_assert!(row.value.is_finite(), "{row:?}");
            if let Some((low, high)) = row.interval {
                prop_assert!(low <= row.value + 1e-9 && row.value <= high + 1e-9, "{row:?}");
            }
            match row.metric {
                "gini" => prop_assert!((0.0..1.0).contains(&row.value), "{row:?}"),
                "imbalance" => prop_assert!((1.0 - 1e-9..=experts / top_k + 1e-9).contains(&row.value)),
                "normalised_entropy" | "domain_specialisation" | "coverage" => {
                    prop_assert!((0.0..=1.0).contains(&row.value), "{row:?}");
                }
                "effective_experts" => {
                    prop_assert!((1.0 - 1e-9..=experts + 1e-9).contains(&row.value), "{row:?}");
                    prop_assert!(row.value >= top_k - 1e-9, "{row:?}");
                }
                "domain_divergence" => {
                    prop_assert!((0.0..=std::f64::consts::LN_2).contains(&row.value), "{row:?}");
                }
                _ => {}
            }
        }
        if !data.is_empty() {
            let utilisation = sum(analysis.rows_of("utilisation"));
            prop_assert!((utilisation - experts).abs() < 1e-9);
            for domain in &data.domains {
                let of_domain = analysis
                    .rows_of("domain_specialisation")
                    .filter(|row| row.domain.as_ref() == Some(domain));
                let shares = sum(of_domain);
                // 0 for a domain without a token.
                prop_assert!((shares - top_k).abs() < 1e-9 || shares == 0.0);
            }
        }
    }

    #[test]
    fn gini_is_the_double_sum(counts in prop::collection::vec(0u32..50, 1..12)) {
        let counts: Vec<f64> = counts.into_iter().map(f64::from).collect();
        if let Some(balance) = balance_of(&counts) {
            let n = counts.len() as f64;
            let mean = counts.iter().sum::<f64>() / n;
            let double: f64 = counts.iter().flat_map(|a| counts.iter().map(move |b| (a - b).abs())).sum();
            prop_assert!((balance.gini - double / (2.0 * n * n * mean)).abs() < 1e-9);
        }
    }

    #[test]
    fn divergence_is_symmetric_and_bounded(
        pairs in prop::collection::vec((0.0f64..1.0, 0.0f64..1.0), 1..10)
    ) {
        let normalised = |values: Vec<f64>| {
            let sum: f64 = values.iter().sum();
            values.into_iter().map(|value| value / sum).collect::<Vec<f64>>()
        };
        let p = normalised(pairs.iter().map(|pair| pair.0 + 1e-9).collect());
        let q = normalised(pairs.iter().map(|pair| pair.1 + 1e-9).collect());
        let divergence = jensen_shannon(&p, &q);
        prop_assert!((divergence - jensen_shannon(&q, &p)).abs() < 1e-12);
        prop_assert!((0.0..=std::f64::consts::LN_2).contains(&divergence));
        prop_assert!(jensen_shannon(&p, &p) < 1e-12);
    }
}
