//! Every metric on a run small enough to work out on paper.

use moescope_analysis::{
    Analysis, Index, LayerData, METRICS, MetricRow, RunData, analyze_data, analyze_metrics,
    balance_of, jensen_shannon,
};
use moescope_trace::Phase::{Decode, Prefill};
use moescope_trace::manifest::TimingMode;

use crate::support::{FAST, SMALL, close, steps, uniform, with_token_ids};

/// Two sequences of two tokens, four experts, two per token: c = [4, 3, 1, 0].
fn tiny() -> RunData {
    let mut layer = LayerData::from_ids(3, 4, 2, vec![0, 1, 0, 2, 0, 1, 1, 0]);
    layer.weights = Some(vec![0.6, 0.4, 0.75, 0.25, 0.5, 0.5, 1.5, 0.5]);
    layer.entropy = Some(vec![1.0, 0.5, 0.25, 0.25]);
    layer.margin = Some(vec![0.5, 0.25, 0.0, 0.25]);
    let mut data = RunData::from_ids("tiny", &[("a", 2), ("b", 2)], vec![layer]).unwrap();
    data.tokens.logprob = Some(vec![f32::NAN, -1.0, f32::NAN, -3.0]);
    data.tokens.phase = vec![Prefill, Prefill, Prefill, Decode];
    data.tokens.step = vec![0, 0, 1, 2];
    data.check().unwrap();
    data
}

#[track_caller]
fn at<'a>(analysis: &'a Analysis, metric: &str, index: Option<Index>) -> &'a MetricRow {
    analysis.row(metric, Some(3), index, None, None).unwrap()
}

#[test]
fn utilisation() {
    let analysis = analyze_data(&tiny(), &FAST);
    for (expert, expected) in [2.0, 1.5, 0.5, 0.0].into_iter().enumerate() {
        let row = at(&analysis, "utilisation", Some(Index::Expert(expert as u16)));
        close(row.value, expected);
        assert_eq!(row.chance, Some(1.0));
        assert_eq!(row.interval, None, "two sequences are too few");
    }
    let matrix = analysis.matrix("utilisation").unwrap();
    assert_eq!((matrix.layers, matrix.values), (vec![3], vec![vec![2.0, 1.5, 0.5, 0.0]]));
    // The last token is the only one of the decode phase: experts 1 and 0.
    let decode = |expert| {
        let index = Some(Index::Expert(expert));
        analysis.row("utilisation", Some(3), index, None, Some("decode")).unwrap().value
    };
    assert_eq!([0, 1, 2, 3].map(decode), [2.0, 2.0, 0.0, 0.0]);
}

#[test]
fn balance() {
    let analysis = analyze_data(&tiny(), &FAST);
    let value = |metric| at(&analysis, metric, None).value;
    close(value("imbalance"), 2.0);
    close(value("max_vio"), 1.0);
    // Deviations 2, 1, 1, 2: variance 10/4, over a mean of 2.
    close(value("coefficient_of_variation"), 2.5f64.sqrt() / 2.0);
    // Differences 1 + 3 + 4 + 2 + 3 + 1 = 14, twice, over 2 * 16 * 2.
    close(value("gini"), 28.0 / 64.0);
    // 0.5 ln 2 + 0.375 ln(8/3) + 0.125 ln 8 = 0.974315 nats.
    close(value("normalised_entropy"), 0.702_819_5);
    close(value("effective_experts"), 2.649_351_1);
    close(value("tokens"), 4.0);
    // Of one domain: token [0, 1] and [0, 2]: c = [2, 1, 1, 0].
    let of_a = analysis.row("imbalance", Some(3), None, Some("a"), None).unwrap();
    close(of_a.value, 2.0);
    close(analysis.row("gini", Some(3), None, Some("a"), None).unwrap().value, 12.0 / 32.0);
}

#[test]
fn balance_of_extremes() {
    let even = balance_of(&[5.0; 8]).unwrap();
    assert_eq!((even.imbalance, even.variation, even.gini), (1.0, 0.0, 0.0));
    close(even.effective_experts, 8.0);
    let one = balance_of(&[0.0, 0.0, 7.0, 0.0]).unwrap();
    assert_eq!((one.imbalance, one.gini, one.normalised_entropy), (4.0, 0.75, 0.0));
    close(one.effective_experts, 1.0);
    assert_eq!(balance_of(&[0.0, 0.0]), None);
    assert_eq!(balance_of(&[]), None);
    // A single expert is as even as it gets.
    assert_eq!(balance_of(&[3.0]).unwrap().normalised_entropy, 1.0);
}

#[test]
fn dead_experts() {
    let analysis = analyze_data(&tiny(), &FAST);
    let row = at(&analysis, "dead_experts", None);
    assert_eq!(row.value, 1.0);
    close(row.chance.unwrap(), 4.0 * 0.5f64.powi(4));
    // Alone, it comes with the tokens; asked for both, with no second lot of them.
    let named = |names: &[&str]| {
        let metrics = METRICS.iter().filter(|metric| names.contains(&metric.name));
        let analysis = analyze_metrics(&tiny(), &FAST, metrics);
        let mut rows: Vec<&str> = analysis.rows.iter().map(|row| row.metric).collect();
        rows.dedup();
        rows
    };
    assert_eq!(named(&["dead_experts"]), ["tokens", "dead_experts"]);
    assert_eq!(named(&["gini", "dead_experts"]), ["gini", "tokens", "dead_experts"]);
    assert_eq!(named(&["tokens", "dead_experts"]), ["tokens", "dead_experts"]);
    assert_eq!(named(&["gini"]), ["gini"]);
}

#[test]
fn coverage() {
    // Chosen on "a" (c = [2, 1, 1, 0], so 0, 1, 2, 3), measured on "b" (c = [2, 2, 0, 0]).
    let analysis = analyze_data(&tiny(), &FAST);
    for (percent, value, chance) in [(50, 0.25, 0.5), (80, 0.5, 1.0), (90, 0.5, 1.0)] {
        let row = at(&analysis, "coverage", Some(Index::Percentile(percent)));
        assert_eq!((row.value, row.chance), (value, Some(chance)), "{percent} %");
    }
}

#[test]
fn domain_specialisation() {
    let analysis = analyze_data(&tiny(), &FAST);
    let (domains, shares) = analysis.domain_matrix("domain_specialisation", 3).unwrap();
    assert_eq!(domains, ["a", "b"]);
    assert_eq!(shares, [[1.0, 0.5, 0.5, 0.0], [1.0, 1.0, 0.0, 0.0]]);
    assert!(analysis.rows_of("domain_specialisation").all(|row| row.chance == Some(0.5)));
}

#[test]
fn domain_divergence() {
    let analysis = analyze_data(&tiny(), &FAST);
    let row = at(&analysis, "domain_divergence", Some(Index::Pair(0, 1)));
    // P = [1/2, 1/4, 1/4, 0], Q = [1/2, 1/2, 0, 0].
    let p = 0.25 * (0.25f64 / 0.375).ln() + 0.25 * 2f64.ln();
    let q = 0.5 * (0.5f64 / 0.375).ln();
    close(row.value, (p + q) / 2.0);
    close(row.value, 0.107_880_8);
    // (4 - 2) / (8 * 2) * (1/2 + 1/2)
    close(row.chance.unwrap(), 0.125);
    close(jensen_shannon(&[1.0, 0.0], &[0.0, 1.0]), std::f64::consts::LN_2);
    assert_eq!(jensen_shannon(&[0.5, 0.5], &[0.5, 0.5]), 0.0);
}

#[test]
fn confidence() {
    let analysis = analyze_data(&tiny(), &FAST);
    let entropy = at(&analysis, "router_entropy", None);
    close(entropy.value, 0.5);
    close(entropy.chance.unwrap(), 4f64.ln());
    close(at(&analysis, "router_margin", None).value, 0.25);
    assert_eq!(
        analysis
            .by_domain("router_entropy", Some(3))
            .map(|(d, row)| (d, row.value))
            .collect::<Vec<_>>(),
        [("a", 0.75), ("b", 0.25)]
    );
    // Shares of rank 0: 0.6, 0.75, 0.5, 1.5 / 2.
    let rank = |rank| at(&analysis, "weight_by_rank", Some(Index::Rank(rank)));
    close(rank(0).value, 0.65);
    close(rank(1).value, 0.35);
    assert_eq!(rank(0).chance, Some(0.5));
}

#[test]
fn mean_logprob() {
    let analysis = analyze_data(&tiny(), &FAST);
    let value = |domain, phase| {
        analysis.row("mean_logprob", None, None, domain, phase).map(|row| row.value)
    };
    assert_eq!(value(None, None), Some(-2.0));
    assert_eq!(value(None, Some("prefill")), Some(-1.0));
    assert_eq!(value(None, Some("decode")), Some(-3.0));
    assert_eq!(value(Some("a"), None), Some(-1.0));
    assert_eq!(value(Some("b"), None), Some(-3.0));
    assert_eq!(value(Some("b"), Some("decode")), Some(-3.0));
    assert_eq!(value(Some("b"), Some("prefill")), None, "its only prompt token has none");
}

#[test]
fn throughput() {
    let mut data = tiny();
    // 4 tokens in 2 ms; 2 tokens in 4 ms.
    data.steps = steps(&[
        (Prefill, 2, 500_000),
        (Prefill, 2, 1_500_000),
        (Decode, 1, 1_000_000),
        (Decode, 1, 3_000_000),
    ]);
    assert!(analyze_data(&data, &FAST).rows_of("throughput").next().is_none());
    data.manifest.settings.timing_mode = TimingMode::EndToEnd;
    let analysis = analyze_data(&data, &FAST);
    let value = |phase| analysis.row("throughput", None, None, None, Some(phase)).unwrap().value;
    close(value("prefill"), 2000.0);
    close(value("decode"), 500.0);
    // Times of a profiled run are not those of a run.
    data.manifest.settings.timing_mode = TimingMode::Profiled;
    let analysis = analyze_data(&data, &FAST);
    assert!(analysis.rows_of("throughput").next().is_none());
    let absent = analysis.absent.iter().find(|absent| absent.metric == "throughput").unwrap();
    assert_eq!(absent.reason, "not recorded: end-to-end times");
}

#[test]
fn step_latency() {
    let mut data = tiny();
    // 1 to 10 ms in disorder: nearest ranks 5, 10, 10.
    let passes: Vec<_> =
        [4, 9, 1, 10, 6, 2, 8, 3, 7, 5].map(|ms| (Decode, 1, ms * 1_000_000)).into();
    data.steps = steps(&passes);
    data.manifest.settings.timing_mode = TimingMode::EndToEnd;
    let analysis = analyze_data(&data, &FAST);
    let value = |percent| {
        let index = Some(Index::Percentile(percent));
        analysis.row("step_latency", None, index, None, Some("decode")).unwrap().value
    };
    assert_eq!([50, 95, 99].map(value), [5e6, 10e6, 10e6]);
    assert!(analysis.rows_of("step_latency").all(|row| row.phase == Some("decode")));
}

#[test]
fn memory() {
    let mut data = tiny();
    data.steps = steps(&[(Prefill, 2, 1), (Decode, 1, 1), (Decode, 1, 1)]);
    data.steps.bytes_in_use = vec![Some(700), Some(300), None];
    data.steps.rss_bytes = vec![Some(1000), Some(2000), Some(1500)];
    data.steps.bytes_reserved = vec![Some(1024), Some(1024), Some(4096)];
    let analysis = analyze_data(&data, &FAST);
    assert_eq!(analysis.value("peak_bytes_in_use", None), Some(700.0));
    assert_eq!(analysis.value("peak_rss_bytes", None), Some(2000.0));
    let prefill = analysis.row("peak_rss_bytes", None, None, None, Some("prefill")).unwrap();
    assert_eq!(prefill.value, 1000.0);
    assert_eq!(analysis.value("peak_bytes_reserved", None), Some(4096.0));
    let decode = analysis.row("peak_bytes_reserved", None, None, None, Some("decode")).unwrap();
    assert_eq!(decode.value, 4096.0);
    data.steps.bytes_reserved = vec![None; 3];
    let analysis = analyze_data(&data, &FAST);
    let absent = |metric| analysis.absent.iter().any(|absent| absent.metric == metric);
    assert!(absent("peak_bytes_reserved") && !absent("peak_rss_bytes"));
}

#[test]
fn rows_say_what_the_registry_says() {
    let mut data = uniform(SMALL, 1);
    with_token_ids(&mut data, 30, 1);
    let tokens = data.len();
    data.tokens.logprob = Some(vec![-1.0; tokens]);
    for layer in &mut data.layers {
        layer.weights = Some(vec![0.5; layer.ids.len()]);
        layer.entropy = Some(vec![1.0; tokens]);
        layer.margin = Some(vec![0.1; tokens]);
        layer.output_norms = Some(vec![1.0; layer.ids.len()]);
    }
    // Of each sequence the last token was generated, in a pass of its own.
    let sequences = data.sequences.len() as u32;
    for sequence in data.sequences.clone() {
        data.tokens.phase[sequence.end - 1] = Decode;
        data.tokens.step[sequence.end - 1] += sequences;
    }
    let passes: Vec<_> =
        [(Prefill, 39, 5), (Decode, 1, 1)].map(|pass| vec![pass; sequences as usize]).concat();
    data.steps = steps(&passes);
    let memory = vec![Some(1); passes.len()];
    data.steps.bytes_in_use = memory.clone();
    data.steps.bytes_reserved = memory.clone();
    data.steps.rss_bytes = memory;
    data.manifest.settings.timing_mode = TimingMode::EndToEnd;
    let analysis = analyze_data(&data, &FAST);
    assert_eq!(analysis.absent, []);
    for metric in METRICS {
        assert!(
            !metric.formula.is_empty() && !metric.source.is_empty() && !metric.needs.is_empty()
        );
        assert_eq!(METRICS.iter().filter(|other| other.name == metric.name).count(), 1);
        let mut rows = analysis.rows_of(metric.name).peekable();
        assert!(rows.peek().is_some(), "{} has no rows", metric.name);
        for row in rows {
            assert_eq!(row.unit, metric.unit);
            assert_eq!(row.chance.is_some(), !metric.chance.is_empty(), "{row:?}");
            assert!(row.value.is_finite(), "{row:?}");
        }
    }
}
