//! Traces whose answer was planted.

use moescope_analysis::{Index, MetricRow, Options, analyze_data, findings};

use crate::support::{FAST, SMALL, Shape, run, uniform, uniformly};

/// Share of rows with an interval whose interval holds their chance level.
fn held<'a>(rows: impl Iterator<Item = &'a MetricRow>) -> (f64, usize) {
    let rows: Vec<_> = rows
        .filter_map(|row| Some((row.interval?, row.chance?)))
        .map(|((low, high), chance)| (low..=high).contains(&chance))
        .collect();
    (rows.iter().filter(|&&held| held).count() as f64 / rows.len() as f64, rows.len())
}

#[test]
fn uniform_routing_is_at_chance() {
    let shape = Shape { layers: 60, ..SMALL };
    let analysis = analyze_data(&uniform(shape, 11), &Options { resamples: 400, seed: 3 });
    for (_, row) in analysis.by_layer("normalised_entropy") {
        assert!(row.value > 0.99, "{row:?}");
    }
    // Linear statistics: close to their nominal 95 %.
    for metric in ["utilisation", "domain_specialisation"] {
        let (share, rows) = held(analysis.rows_of(metric));
        assert!((0.92..0.98).contains(&share), "{metric}: {share} of {rows}");
    }
    // Statistics biased by noise: their spread is overestimated at chance, never underestimated.
    for metric in [
        "imbalance",
        "max_vio",
        "coefficient_of_variation",
        "gini",
        "normalised_entropy",
        "effective_experts",
        "domain_divergence",
        "coverage",
    ] {
        let (share, rows) = held(analysis.rows_of(metric));
        assert!(share > 0.92, "{metric}: {share} of {rows}");
    }
}

#[test]
fn uniform_routing_yields_no_finding() {
    // Some 130 values per run compete to look extreme.
    for seed in 0..20 {
        let analysis = analyze_data(&uniform(SMALL, seed), &Options::default());
        let found = findings(&[analysis], &[]);
        assert!(found.is_empty(), "seed {seed}: {found:?}");
    }
}

#[test]
fn uniform_routing_of_one_expert_per_token() {
    let shape = Shape { experts: 8, top_k: 1, layers: 40, ..SMALL };
    let analysis = analyze_data(&uniform(shape, 5), &Options { resamples: 400, seed: 3 });
    for metric in ["utilisation", "domain_specialisation"] {
        let (share, rows) = held(analysis.rows_of(metric));
        assert!((0.92..0.98).contains(&share), "{metric}: {share} of {rows}");
    }
}

#[test]
fn one_dead_expert() {
    let data = run(SMALL, 2, |_, layer, _, rng, chosen| {
        // Expert 15 is out of reach in layer 1.
        uniformly(rng, if layer == 1 { 15 } else { 16 }, 2, chosen);
    });
    let analysis = analyze_data(&data, &FAST);
    assert_eq!(analysis.value("dead_experts", Some(0)), Some(0.0));
    assert_eq!(analysis.value("dead_experts", Some(1)), Some(1.0));
    let index = Some(Index::Expert(15));
    assert_eq!(analysis.row("utilisation", Some(1), index, None, None).unwrap().value, 0.0);
    let found = findings(&[analysis], &[]);
    let dead = found.iter().find(|finding| finding.headline.contains("selected by none")).unwrap();
    assert_eq!(dead.headline, "1 of 32 experts is selected by none of 1,800 tokens");
    assert!(dead.detail.starts_with("1 in layer 1. Uniform routing"), "{}", dead.detail);
}

#[test]
fn a_planted_domain_expert() {
    let data = run(SMALL, 4, |domain, layer, _, rng, chosen| {
        // "japanese" takes expert 9 of layer 1 in 60 % of its tokens; else everything is uniform.
        if domain == 2 && layer == 1 && rng.unit() < 0.6 {
            chosen.push(9);
        }
        uniformly(rng, 16, 2, chosen);
    });
    let analysis = analyze_data(&data, &Options::default());
    let index = Some(Index::Expert(9));
    let row =
        analysis.row("domain_specialisation", Some(1), index, Some("japanese"), None).unwrap();
    // 0.6 + 0.4 * 2/16
    assert!((row.value - 0.65).abs() < 0.04, "{row:?}");
    let (low, high) = row.interval.unwrap();
    assert!(low > 0.55 && high < 0.75, "{row:?}");

    let divergent: Vec<_> = analysis
        .rows_of("domain_divergence")
        .filter(|row| row.interval.is_some_and(|(low, _)| low > row.chance.unwrap()))
        .map(|row| (row.layer.unwrap(), row.index.unwrap()))
        .collect();
    assert_eq!(divergent, [(1, Index::Pair(0, 2)), (1, Index::Pair(1, 2))]);

    let found = findings(std::slice::from_ref(&analysis), &[]);
    assert!(
        found[0].headline.starts_with("Expert 9 of layer 1 takes 6")
            && found[0].headline.ends_with("of \"japanese\" tokens; 12.5 % would be even"),
        "{found:?}"
    );
    assert_eq!(found[0].figure, Some("specialisation"));
    assert!(found[0].effect > 1.0);
}

#[test]
fn a_hot_expert_of_all_domains_is_no_specialist() {
    let data = run(SMALL, 4, |_, layer, _, rng, chosen| {
        if layer == 0 && rng.unit() < 0.5 {
            chosen.push(3);
        }
        uniformly(rng, 16, 2, chosen);
    });
    let analysis = analyze_data(&data, &Options::default());
    let found = findings(&[analysis], &[]);
    assert!(found.iter().all(|finding| finding.figure != Some("specialisation")), "{found:?}");
    let hot = found.iter().find(|finding| finding.figure == Some("utilisation")).unwrap();
    assert!(hot.headline.starts_with("Expert 3 of layer 0 is used 4."), "{hot:?}");
    let uneven = found.iter().find(|finding| finding.figure == Some("balance")).unwrap();
    assert!(uneven.headline.starts_with("Layer 0 is the least balanced"), "{uneven:?}");
}

#[test]
fn concentration_that_does_not_carry_over_is_no_coverage() {
    // Each sequence uses two experts of its own choice: skewed in every sequence, even over all.
    let mut own = [0u16; 2];
    let shape = Shape { experts: 64, sequences_per_domain: 40, layers: 1, ..SMALL };
    let data = run(shape, 9, |_, _, position, rng, chosen| {
        if position == 0 {
            own = [rng.below(32) as u16, 32 + rng.below(32) as u16];
        }
        chosen.extend(own);
    });
    let analysis = analyze_data(&data, &FAST);
    let row = analysis.row("coverage", Some(0), Some(Index::Percentile(50)), None, None).unwrap();
    assert!(row.value > 0.35, "{row:?}");
    // And planted concentration does: half of the traffic on 4 of 64.
    let data = run(shape, 9, |_, _, _, rng, chosen| {
        if rng.unit() < 0.9 {
            uniformly(rng, 4, 2, chosen);
        }
        uniformly(rng, 64, 2, chosen);
    });
    let analysis = analyze_data(&data, &FAST);
    let row = analysis.row("coverage", Some(0), Some(Index::Percentile(80)), None, None).unwrap();
    assert!((row.value - 4.0 / 64.0).abs() < 1e-9, "{row:?}");
}

#[test]
fn dependent_tokens_widen_intervals() {
    // All tokens of a sequence take the same experts: 45 draws, not 1800.
    let mut own = Vec::new();
    let dependent = run(SMALL, 1, |_, _, position, rng, chosen| {
        if position == 0 {
            own.clear();
            uniformly(rng, 16, 2, &mut own);
        }
        chosen.extend(&own);
    });
    let options = Options::default();
    let width = |data| {
        let analysis = analyze_data(data, &options);
        let rows = analysis.rows_of("utilisation").filter_map(|row| row.interval);
        rows.map(|(low, high)| high - low).sum::<f64>() / 32.0
    };
    let (wide, narrow) = (width(&dependent), width(&uniform(SMALL, 1)));
    // sqrt(40) times as wide.
    assert!((4.0..9.0).contains(&(wide / narrow)), "{wide} {narrow}");
    let (share, _) = held(analyze_data(&dependent, &options).rows_of("utilisation"));
    assert!(share > 0.85, "{share}");
}
