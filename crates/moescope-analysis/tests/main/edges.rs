//! Runs at the edge of what is a run.

use moescope_analysis::{
    AnalysisError, Index, LayerData, METRICS, NO_EXPERT, RunData, analyze_data, findings,
};
use moescope_trace::Phase;
use moescope_trace::manifest::{DeviceType, LayersKept, TimingMode, Weights};

use crate::support::{FAST, SMALL, Shape, run, uniform};

#[test]
fn all_experts_per_token() {
    let shape = Shape { experts: 4, top_k: 4, ..SMALL };
    let data = run(shape, 1, |_, _, _, _, chosen| chosen.extend(0..4));
    let analysis = analyze_data(&data, &FAST);
    for (metric, value) in [("imbalance", 1.0), ("gini", 0.0), ("normalised_entropy", 1.0)] {
        for (_, row) in analysis.by_layer(metric) {
            assert!((row.value - value).abs() < 1e-12, "{row:?}");
            assert!((row.chance.unwrap() - value).abs() < 1e-12, "{row:?}");
        }
    }
    assert!(analysis.rows_of("domain_specialisation").all(|row| row.value == 1.0));
    assert!(analysis.rows_of("domain_divergence").all(|row| row.value == 0.0));
    assert!(findings(&[analysis], &[]).is_empty());
}

#[test]
fn one_expert() {
    let shape = Shape { experts: 1, top_k: 1, ..SMALL };
    let data = run(shape, 1, |_, _, _, _, chosen| chosen.push(0));
    let analysis = analyze_data(&data, &FAST);
    assert_eq!(analysis.value("normalised_entropy", Some(0)), Some(1.0));
    assert_eq!(analysis.value("effective_experts", Some(0)), Some(1.0));
    assert_eq!(analysis.value("dead_experts", Some(0)), Some(0.0));
    assert!(analysis.rows.iter().all(|row| row.value.is_finite()));
    assert!(findings(&[analysis], &[]).is_empty());
}

#[test]
fn one_token() {
    let layer = LayerData::from_ids(0, 8, 2, vec![5, 1]);
    let data = RunData::from_ids("one", &[("a", 1)], vec![layer]).unwrap();
    let analysis = analyze_data(&data, &FAST);
    assert_eq!(analysis.value("imbalance", Some(0)), Some(4.0));
    // One token cannot do otherwise: the chance level says so.
    let row = analysis.row("imbalance", Some(0), None, None, None).unwrap();
    assert!((row.chance.unwrap() - 4.0).abs() < 1e-9);
    assert_eq!(row.interval, None);
    let dead = analysis.row("dead_experts", Some(0), None, None, None).unwrap();
    assert_eq!((dead.value, dead.chance), (6.0, Some(6.0)));
    // A single domain still says which experts it uses.
    let (domains, shares) = analysis.domain_matrix("domain_specialisation", 0).unwrap();
    assert_eq!(domains, ["a"]);
    assert_eq!(shares[0][5], 1.0);
    // With one sequence there is no second half.
    assert_eq!(analysis.rows_of("coverage").count(), 0);
    let found = findings(&[analysis], &[]);
    assert_eq!(found.len(), 1);
    assert!(found[0].caveat);
    assert_eq!(found[0].headline, "one has 1 sequence only");
}

#[test]
fn empty_run() {
    for layers in [vec![], vec![LayerData::from_ids(0, 8, 2, vec![])]] {
        let data = RunData::from_ids("empty", &[], layers).unwrap();
        let analysis = analyze_data(&data, &FAST);
        assert_eq!((analysis.tokens, analysis.sequences, analysis.rows.len()), (0, 0, 0));
        assert_eq!(analysis.absent.len(), METRICS.len());
        assert!(findings(&[analysis], &[]).is_empty());
    }
}

#[test]
fn dense_model() {
    let mut data = RunData::from_ids("dense", &[("a", 3), ("b", 2)], vec![]).unwrap();
    data.tokens.logprob = Some(vec![-1.0; 5]);
    let analysis = analyze_data(&data, &FAST);
    assert_eq!(analysis.value("mean_logprob", None), Some(-1.0));
    assert!(analysis.absent.iter().any(|absent| {
        absent.metric == "utilisation" && absent.reason == "not recorded: expert ids"
    }));
}

#[test]
fn ids_only() {
    let analysis = analyze_data(&uniform(SMALL, 1), &FAST);
    let absent: Vec<_> =
        analysis.absent.iter().map(|absent| (absent.metric, absent.reason.as_str())).collect();
    assert_eq!(
        absent,
        [
            ("vocabulary_specialisation", "not recorded: token ids"),
            ("next_token_specialisation", "not recorded: token ids"),
            ("router_entropy", "not recorded: router entropy"),
            ("router_margin", "not recorded: router margin"),
            ("weight_by_rank", "not recorded: expert weights"),
            ("hit_rate_lru_warm", "not recorded: generated tokens after prompts"),
            ("hit_rate_global_lru_warm", "not recorded: generated tokens after prompts"),
            (
                "saliency_reap",
                "not recorded: expert weights, expert output norms (run with --saliency)"
            ),
            ("saliency_ean", "not recorded: expert output norms (run with --saliency)"),
            (
                "pruned_traffic",
                "not recorded: expert weights, expert output norms (run with --saliency)"
            ),
            (
                "pruned_saliency",
                "not recorded: expert weights, expert output norms (run with --saliency)"
            ),
            ("pruned_traffic_ean", "not recorded: expert output norms (run with --saliency)"),
            (
                "pruned_saliency_ean",
                "not recorded: expert weights, expert output norms (run with --saliency)"
            ),
            (
                "pruned_saliency_frequency",
                "not recorded: expert weights, expert output norms (run with --saliency)"
            ),
            ("distinct_experts", "not recorded: forward passes"),
            ("mean_logprob", "not recorded: log-probabilities"),
            ("throughput", "not recorded: end-to-end times"),
            ("step_latency", "not recorded: end-to-end times"),
            ("ttft", "not recorded: end-to-end times"),
            ("tpot", "not recorded: end-to-end times"),
            ("itl", "not recorded: end-to-end times"),
            ("peak_bytes_in_use", "not recorded: device memory in use"),
            ("peak_bytes_reserved", "not recorded: device memory reserved"),
            ("peak_rss_bytes", "not recorded: process memory"),
        ]
    );
    assert_eq!(analysis.rows_of("utilisation").count(), 2 * 16);
    assert_eq!(analysis.rows_of("domain_specialisation").count(), 2 * 3 * 16);
    assert_eq!(analysis.rows_of("domain_divergence").count(), 2 * 3);
}

/// Ids alone, in every shape that an import may have: each metric has rows or says what is missing.
#[test]
fn every_metric_of_ids_alone() {
    let mut decoded = uniform(SMALL, 1);
    for sequence in &decoded.sequences {
        decoded.tokens.phase[sequence.start + 20..sequence.end].fill(Phase::Decode);
    }
    let one_domain = uniform(Shape { domains: &["all"], ..SMALL }, 2);
    let one_layer = uniform(Shape { layers: 1, ..SMALL }, 3);
    let one_expert = uniform(Shape { top_k: 1, ..SMALL }, 4);
    for (what, data) in [
        ("prompts", &uniform(SMALL, 1)),
        ("generated", &decoded),
        ("one domain", &one_domain),
        ("one layer", &one_layer),
        ("one expert per token", &one_expert),
    ] {
        let analysis = analyze_data(data, &FAST);
        for metric in METRICS {
            let rows = analysis.rows_of(metric.name).count();
            let absent = analysis.absent.iter().find(|absent| absent.metric == metric.name);
            let missing: Vec<&str> = metric
                .needs
                .iter()
                .filter(|need| !data.has(**need))
                .map(|need| need.what())
                .collect();
            match absent {
                None => assert!(rows > 0 && missing.is_empty(), "{what}: {}", metric.name),
                Some(absent) if missing.is_empty() => {
                    // A token of one expert has no pairs.
                    assert!(what == "one expert per token", "{what}: {absent:?}");
                    assert!(metric.name.starts_with("coactivation"), "{absent:?}");
                    assert!(absent.reason.starts_with("nothing to measure"), "{absent:?}");
                }
                Some(absent) => {
                    assert_eq!(rows, 0, "{what}: {}", metric.name);
                    assert!(absent.reason.starts_with("not recorded: "), "{absent:?}");
                    for thing in missing {
                        assert!(absent.reason.contains(thing), "{what}: {absent:?} lacks {thing}");
                    }
                }
            }
        }
        assert!(analysis.rows.iter().all(|row| row.value.is_finite()), "{what}");
        // Findings rest on what is there.
        for finding in findings(&[analysis], &[]) {
            assert!(finding.effect.is_finite(), "{what}: {finding:?}");
        }
    }
}

/// What is left out because there is too much of it says so.
#[test]
fn too_large() {
    let reason = |analysis: &moescope_analysis::Analysis, metric: &str| {
        let absent = analysis.absent.iter().find(|absent| absent.metric == metric);
        absent.map(|absent| absent.reason.clone())
    };
    let many: Vec<String> = (0..65).map(|domain| format!("domain {domain}")).collect();
    for (domains, expected) in
        [(65, Some("too large: computed for at most 64 domains")), (64, None)]
    {
        let sequences: Vec<(&str, usize)> =
            many.iter().take(domains).map(|domain| (domain.as_str(), 4)).collect();
        let layer = LayerData::from_ids(0, 4, 1, (0..).map(|n| n % 4).take(4 * domains).collect());
        let data = RunData::from_ids("many", &sequences, vec![layer]).unwrap();
        let analysis = analyze_data(&data, &FAST);
        assert_eq!(reason(&analysis, "domain_divergence").as_deref(), expected);
        assert!(analysis.rows_of("domain_specialisation").next().is_some());
    }
    for (experts, expected) in
        [(1025, Some("too large: computed for a layer of at most 1024 experts")), (1024, None)]
    {
        let layers = [0, 1].map(|layer| {
            let ids = (0..160).map(|n| (n % 6 * 50) as u16).collect();
            LayerData::from_ids(layer, experts, 2, ids)
        });
        let data = RunData::from_ids("wide", &[("a", 10); 8], layers.to_vec()).unwrap();
        let analysis = analyze_data(&data, &FAST);
        for metric in
            ["coactivation", "coactivation_excess", "path_information", "prefetch_hit_rate"]
        {
            assert_eq!(reason(&analysis, metric).as_deref(), expected, "{metric}");
        }
        assert!(analysis.rows_of("gini").next().is_some());
    }
}

#[test]
fn one_layer_leads_nowhere() {
    let analysis = analyze_data(&uniform(Shape { layers: 1, ..SMALL }, 1), &FAST);
    let alone: Vec<&str> = analysis
        .absent
        .iter()
        .filter(|absent| absent.reason == "not recorded: a second MoE layer")
        .map(|absent| absent.metric)
        .collect();
    assert_eq!(
        alone,
        [
            "path_information",
            "expert_path",
            "next_layer_recall",
            "next_layer_exact",
            "prefetch_hit_rate",
            "prefetch_wasted"
        ]
    );
}

#[test]
fn tokens_without_routing_at_a_layer() {
    let layer = LayerData::from_ids(0, 4, 2, vec![0, 1, NO_EXPERT, NO_EXPERT, 2, NO_EXPERT]);
    let data = RunData::from_ids("gaps", &[("a", 3)], vec![layer]).unwrap();
    let analysis = analyze_data(&data, &FAST);
    assert_eq!(analysis.value("tokens", Some(0)), Some(2.0));
    // c = [1, 1, 1, 0]
    let shares = analysis.matrix("utilisation").unwrap().values;
    assert!((shares[0][2] - 4.0 / 3.0).abs() < 1e-12);
}

#[test]
fn partial_and_other_labels() {
    let mut data = uniform(SMALL, 1);
    data.partial = true;
    data.manifest.sequences = 90;
    data.manifest.model.weights = Weights::Random;
    data.manifest.model.layers_kept = Some(LayersKept { kept: 2, of: 30 });
    data.manifest.model.rumour = true;
    data.manifest.device.device_type = DeviceType::Software;
    data.manifest.device.adapter = "llvmpipe".to_owned();
    data.manifest.settings.timing_mode = TimingMode::Profiled;
    let analysis = analyze_data(&data, &FAST);
    assert_eq!(
        analysis.labelled_name(),
        "synthetic [partial run, random weights, first layers only, rumoured shapes, software adapter, \
         profiled]"
    );
    let found = findings(&[analysis], &[]);
    let headlines: Vec<&str> = found.iter().map(|finding| finding.headline.as_str()).collect();
    assert_eq!(
        headlines,
        [
            "synthetic is a partial run: 45 of 90 sequences are there",
            "synthetic has random weights",
            "synthetic ran 2 of the model's 30 layers",
            "synthetic has the shapes of a model that nobody has published",
            "synthetic ran on a software adapter (llvmpipe)",
            "synthetic was profiled, so it has no end-to-end times",
        ]
    );
}

#[test]
fn random_weights_yield_no_routing_finding() {
    let mut data = run(SMALL, 1, |_, _, _, _, chosen| chosen.extend([0, 1]));
    let skewed = findings(&[analyze_data(&data, &FAST)], &[]);
    assert!(skewed.iter().any(|finding| finding.figure == Some("utilisation")));
    data.manifest.model.weights = Weights::Random;
    assert!(findings(&[analyze_data(&data, &FAST)], &[]).iter().all(|finding| finding.caveat));
}

#[test]
fn more_sequences_than_groups() {
    let shape = Shape { sequences_per_domain: 300, tokens: 5, layers: 1, ..SMALL };
    let data = uniform(shape, 6);
    let groups = moescope_analysis::Groups::new(&data);
    assert!((200..=300).contains(&groups.len()), "{}", groups.len());
    for (index, sequence) in data.sequences.iter().enumerate() {
        assert_eq!(groups.domain(groups.of_sequence(index)), sequence.domain);
    }
    let second = (0..groups.len()).filter(|&group| groups.is_second_half(group)).count();
    assert!(second.abs_diff(groups.len() - second) < 4);
    let analysis = analyze_data(&data, &FAST);
    assert_eq!(analysis.sequences, 900);
    assert!(analysis.rows_of("utilisation").all(|row| row.interval.is_some()));
}

#[test]
fn decode_in_few_sequences_has_no_interval() {
    let mut data = uniform(SMALL, 1);
    // The last token of the first two sequences was generated.
    for sequence in [0, 1] {
        let end = data.sequences[sequence].end;
        data.tokens.phase[end - 1] = Phase::Decode;
    }
    let analysis = analyze_data(&data, &FAST);
    let of = |phase| analysis.row("gini", Some(0), None, None, Some(phase)).unwrap();
    assert!(of("prefill").interval.is_some());
    assert_eq!(of("decode").interval, None);
    let row =
        analysis.row("utilisation", Some(0), Some(Index::Expert(0)), None, Some("decode")).unwrap();
    assert_eq!(row.interval, None);
}

#[test]
fn arrays_that_do_not_fit() {
    let short = LayerData::from_ids(7, 4, 2, vec![0, 1]);
    let error = RunData::from_ids("x", &[("a", 2)], vec![short]).unwrap_err();
    assert_eq!(error.to_string(), "routing.experts (layer 7): expected 4 values, found 2");

    let beyond = LayerData::from_ids(7, 4, 2, vec![0, 1, 2, 4]);
    let error = RunData::from_ids("x", &[("a", 2)], vec![beyond]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "routing.experts, sequence 0, position 1: layer 7 has experts 0 to 3, found 4"
    );
    assert!(matches!(error, AnalysisError::Value { .. }));

    let gap = LayerData::from_ids(7, 4, 2, vec![0, 1, NO_EXPERT, 2]);
    let error = RunData::from_ids("x", &[("a", 2)], vec![gap]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "routing.experts, sequence 0, position 1: layer 7: found expert 2 after an empty place"
    );

    let mut data = uniform(SMALL, 1);
    data.tokens.logprob = Some(vec![0.0]);
    assert!(matches!(data.check(), Err(AnalysisError::Length { expected: 1800, found: 1, .. })));
}

#[test]
fn the_same_options_give_the_same_numbers() {
    let data = uniform(SMALL, 1);
    let rows = |options| analyze_data(&data, &options).rows;
    assert_eq!(rows(FAST), rows(FAST));
    assert_ne!(rows(FAST), rows(moescope_analysis::Options { seed: 8, ..FAST }));
    let without = rows(moescope_analysis::Options { resamples: 0, seed: 1 });
    assert!(without.iter().all(|row| row.interval.is_none()));
}
