//! Traces whose structure or locality was planted.

use moescope_analysis::{Index, LayerData, Options, analyze_data};
use moescope_trace::Phase;

use crate::support::{FAST, SMALL, run, uniform, uniformly, with_token_ids};

#[test]
fn a_planted_pair() {
    let data = run(SMALL, 6, |_, layer, _, rng, chosen| {
        // Half of the tokens of layer 1 take 3 and 11; else everything is uniform.
        if layer == 1 && rng.unit() < 0.5 {
            chosen.extend([11, 3]);
        }
        uniformly(rng, 16, 2, chosen);
    });
    let analysis = analyze_data(&data, &Options::default());
    let lift = analysis.rows_of("coactivation_lift").find(|row| row.layer == Some(1)).unwrap();
    assert_eq!(lift.index, Some(Index::Pair(3, 11)));
    let (both, single) = (0.5 + 0.5 / 120.0, 0.5 + 0.5 / 8.0);
    let (low, high) = lift.interval.unwrap();
    assert!(low < both / (single * single) && both / (single * single) < high, "{lift:?}");
    assert!(low > 2.0 * lift.chance.unwrap(), "{lift:?}");
    for (i, j) in [(3, 11), (11, 3)] {
        let row = analysis.row("coactivation", Some(1), Some(Index::Pair(i, j)), None, None);
        let row = row.unwrap();
        assert!((row.value - both / single).abs() < 0.03, "{row:?}");
    }
    // It is there in every domain; the strongest of each are the strongest of all.
    for domain in SMALL.domains {
        let index = Some(Index::Pair(3, 11));
        let row = analysis.row("coactivation_lift", Some(1), index, Some(domain), None).unwrap();
        assert!(row.interval.unwrap().0 > 1.5 * row.chance.unwrap(), "{row:?}");
    }
    // Popularity explains a part of it, since one pair of 16 experts makes both of them popular.
    let excess = |layer| analysis.row("coactivation_excess", Some(layer), None, None, None);
    let (none, planted) = (excess(0).unwrap(), excess(1).unwrap());
    assert!(planted.interval.unwrap().0 > 1.3 * planted.chance.unwrap(), "{planted:?}");
    let (low, high) = none.interval.unwrap();
    assert!((low..=high).contains(&none.chance.unwrap()), "{none:?}");
}

#[test]
fn popularity_is_no_coactivation() {
    // Experts 0 and 1 are hot, and independent of each other.
    let data = run(SMALL, 8, |_, _, _, rng, chosen| {
        while chosen.len() < 2 {
            let expert = if rng.unit() < 0.5 { rng.below(2) } else { rng.below(16) } as u16;
            if !chosen.contains(&expert) {
                chosen.push(expert);
            }
        }
    });
    let analysis = analyze_data(&data, &Options::default());
    for (_, row) in analysis.by_layer("coactivation_excess") {
        // Drawn one after the other, the second is more likely another than the same; that is
        // nearly, not wholly, what quasi-independence is.
        assert!(row.value < 1.35 * row.chance.unwrap(), "{row:?}");
    }
}

#[test]
fn a_repeating_sequence() {
    let data = run(SMALL, 1, |_, _, position, _, chosen| {
        let first = 2 * (position % 4) as u16;
        chosen.extend([first, first + 1]);
    });
    let analysis = analyze_data(&data, &FAST);
    let value =
        |metric, index| analysis.row(metric, Some(0), Some(index), None, None).unwrap().value;
    for lag in 1..39 {
        let expected = f64::from(u8::from(lag % 4 == 0));
        assert_eq!(value("reuse", Index::Lag(lag)), expected, "lag {lag}");
    }
    for (size, distinct) in [(2, 4.0), (4, 8.0), (8, 8.0), (32, 8.0)] {
        assert_eq!(value("working_set", Index::Size(size)), distinct, "window {size}");
        // In step, all sequences of a batch need the same two.
        assert_eq!(value("batch_working_set", Index::Size(size)), 2.0, "batch {size}");
    }
}

#[test]
fn a_predictable_next_layer() {
    let mut data = uniform(SMALL, 3);
    let turned = data.layers[0].ids.iter().map(|id| (id * 5 + 3) % 16).collect();
    data.layers[1] = LayerData::from_ids(1, 16, 2, turned);
    let analysis = analyze_data(&data, &Options::default());
    assert_eq!(analysis.value("next_layer_recall", Some(0)), Some(1.0));
    assert_eq!(analysis.value("next_layer_exact", Some(0)), Some(1.0));
    // All that the next first choice can say: log2 16 bits, if experts are even.
    let bits = analysis.value("path_information", Some(0)).unwrap();
    assert!((3.98..=4.0).contains(&bits), "{bits}");
    let paths: Vec<_> = analysis.rows_of("expert_path").collect();
    assert_eq!(paths.len(), 10 * (1 + 3), "over all and in each of three domains");
    for row in paths {
        let Some(Index::Pair(i, j)) = row.index else { panic!("{row:?}") };
        assert_eq!((j, row.value), ((i * 5 + 3) % 16, 1.0));
    }
}

#[test]
fn a_planted_vocabulary_expert() {
    let mut data = uniform(SMALL, 3);
    with_token_ids(&mut data, 40, 9);
    for token in 0..data.len() {
        // Token 17 takes expert 5 of layer 1 always, and what comes before token 9 expert 2 of layer 0.
        if data.tokens.token_id[token] == 17 {
            plant(&mut data.layers[1], token, 5);
        }
    }
    for sequence in data.sequences.clone() {
        for token in sequence.start..sequence.end - 1 {
            if data.tokens.token_id[token + 1] == 9 {
                plant(&mut data.layers[0], token, 2);
            }
        }
    }
    let analysis = analyze_data(&data, &Options::default());
    let input = &analysis.structure.specialists[1].input[0];
    assert_eq!((input.token_id, input.expert, input.share), (17, 5, 1.0));
    let next = &analysis.structure.specialists[0].next[0];
    assert_eq!((next.token_id, next.expert, next.share), (9, 2, 1.0));
    // One id of 40 adds (1 - 0.25) / 40; the rest is noise, which the chance level knows.
    let row = analysis.row("vocabulary_specialisation", Some(1), None, None, None).unwrap();
    assert!((0.01..0.035).contains(&(row.value - row.chance.unwrap())), "{row:?}");
}

/// Makes a token take an expert, in place of its first if it is not there.
fn plant(layer: &mut LayerData, token: usize, expert: u16) {
    let experts = &mut layer.ids[token * layer.top_k..(token + 1) * layer.top_k];
    if !experts.contains(&expert) {
        experts[0] = expert;
    }
}

#[test]
fn experts_that_belong_to_ids() {
    // The expert is the id, whatever the place: vocabulary explains everything.
    let mut data = uniform(SMALL, 3);
    with_token_ids(&mut data, 16, 4);
    let ids: Vec<u16> = data
        .tokens
        .token_id
        .iter()
        .flat_map(|&id| [id as u16 % 16, (id as u16 + 1) % 16])
        .collect();
    data.layers[0] = LayerData::from_ids(0, 16, 2, ids);
    let analysis = analyze_data(&data, &FAST);
    assert_eq!(analysis.value("vocabulary_specialisation", Some(0)), Some(1.0));
    let next = analysis.row("next_token_specialisation", Some(0), None, None, None).unwrap();
    assert!(next.value - next.chance.unwrap() < 0.03, "ids follow each other at random: {next:?}");
}

#[test]
fn structure_of_one_domain_and_phase() {
    // In "rust" alone: a pair in half of the tokens of layer 1, in all of the generated ones; and
    // tokens 7 to 12 take expert 6 of layer 0 there.
    let mut data = run(SMALL, 6, |domain, layer, position, rng, chosen| {
        if domain == 1 && layer == 1 && (position >= 30 || rng.unit() < 0.5) {
            chosen.extend([11, 3]);
        }
        uniformly(rng, 16, 2, chosen);
    });
    with_token_ids(&mut data, 20, 3);
    let rust = data.domains.iter().position(|domain| domain == "rust").unwrap();
    for sequence in data.sequences.clone() {
        data.tokens.phase[sequence.start + 30..sequence.end].fill(Phase::Decode);
        if usize::from(sequence.domain) == rust {
            for token in sequence.start..sequence.end {
                if (7..=12).contains(&data.tokens.token_id[token]) {
                    plant(&mut data.layers[0], token, 6);
                }
            }
        }
    }
    let analysis = analyze_data(&data, &Options::default());
    let pair = Some(Index::Pair(3, 11));
    let lift = |domain, phase| {
        let row = analysis.row("coactivation", Some(1), pair, domain, phase).unwrap();
        (row.value, row.interval)
    };
    // P(11 given 3): (1/2 + 1/2 / 120) / (1/2 + 1/2 / 8) in prompts, 1 in what was generated.
    let (value, interval) = lift(Some("rust"), None);
    let expected = (0.25 + 0.75 * (0.5 + 0.5 / 120.0)) / (0.25 + 0.75 * (0.5 + 0.5 / 8.0));
    assert!((value - expected).abs() < 0.04, "{value} {expected}");
    assert!(interval.unwrap().0 > 0.5);
    // One of fifteen, elsewhere.
    assert!(lift(Some("english"), None).0 < 0.2);
    let (prefill, decode) = (lift(None, Some("prefill")).0, lift(None, Some("decode")).0);
    assert!(decode > prefill + 0.05, "{prefill} {decode}");
    let of = |metric: &str, layer, domain| {
        analysis.row(metric, Some(layer), None, domain, None).unwrap()
    };
    for domain in SMALL.domains {
        let excess = of("coactivation_excess", 1, Some(*domain));
        let above = excess.interval.unwrap().0 > 1.3 * excess.chance.unwrap();
        assert_eq!(above, *domain == "rust", "{excess:?}");
        // Six of 20 ids take an expert always: 0.3 (1 - 0.25) above chance.
        let vocabulary = of("vocabulary_specialisation", 0, Some(*domain));
        let above = vocabulary.value - vocabulary.chance.unwrap();
        assert_eq!(above > 0.1, *domain == "rust", "{domain}: {vocabulary:?}");
    }
    // Over all, in two phases and in three domains.
    for metric in ["path_information", "coactivation_excess", "vocabulary_specialisation"] {
        let rows: Vec<_> = analysis.rows_of(metric).filter(|row| row.layer == Some(0)).collect();
        let phases = rows.iter().filter(|row| row.phase.is_some()).count();
        let domains = rows.iter().filter(|row| row.domain.is_some()).count();
        assert_eq!((rows.len(), phases, domains), (6, 2, 3), "{metric}");
    }
}

#[test]
fn paths_of_one_domain() {
    // In "rust" the first choice of layer 1 is that of layer 0.
    let mut data = uniform(SMALL, 3);
    let rust = data.domains.iter().position(|domain| domain == "rust").unwrap();
    for sequence in data.sequences.clone() {
        if usize::from(sequence.domain) == rust {
            for token in sequence.start..sequence.end {
                let first = data.layers[0].ids[2 * token];
                let other = (first + 1) % 16;
                data.layers[1].ids[2 * token..2 * token + 2].copy_from_slice(&[first, other]);
            }
        }
    }
    let analysis = analyze_data(&data, &Options::default());
    for domain in SMALL.domains {
        let of = |metric| analysis.row(metric, Some(0), None, Some(domain), None).unwrap();
        let bits = of("path_information");
        let known = bits.interval.unwrap().0 > 2.0 * bits.chance.unwrap();
        assert_eq!(known, *domain == "rust", "{bits:?}");
        let paths =
            analysis.rows_of("expert_path").filter(|row| row.domain.as_deref() == Some(domain));
        let mean = paths.map(|row| row.value).sum::<f64>() / 10.0;
        assert!(if *domain == "rust" { mean == 1.0 } else { mean < 0.2 }, "{domain}: {mean}");
    }
}
