//! The registry of metrics of two runs, and values computed by hand.

use moescope_analysis::{
    COMPARISON_METRICS, Comparison, LayerData, MetricRow, Refusal, RunData, compare,
};
use moescope_trace::Phase;
use moescope_trace::manifest::TimingMode;

use crate::support::{FAST, SMALL, Shape, close, steps, uniform};

/// Six prompts of two tokens with three generated ones each; a pass for each prompt and for each generated
/// token, with all that passes record.
fn recorded(seed: u64) -> RunData {
    let mut data = uniform(Shape { tokens: 5, sequences_per_domain: 2, ..SMALL }, seed);
    data.manifest.settings.timing_mode = TimingMode::EndToEnd;
    data.tokens.logprob = Some(vec![-1.0; data.len()]);
    data.tokens.token_id.fill(3);
    let mut passes = Vec::new();
    for sequence in data.sequences.clone() {
        let prompt = sequence.start + 2;
        data.tokens.step[sequence.start..prompt].fill(passes.len() as u32);
        passes.push((Phase::Prefill, 2, 1000));
        for token in prompt..sequence.end {
            data.tokens.phase[token] = Phase::Decode;
            data.tokens.step[token] = passes.len() as u32;
            passes.push((Phase::Decode, 1, 100));
        }
    }
    data.steps = steps(&passes);
    data.steps.bytes_in_use = vec![Some(1 << 20); passes.len()];
    data.steps.bytes_reserved = vec![Some(1 << 21); passes.len()];
    data.steps.rss_bytes = vec![Some(1 << 22); passes.len()];
    data.check().unwrap();
    data
}

#[track_caller]
fn only<'a>(
    comparison: &'a Comparison,
    metric: &str,
    domain: Option<&str>,
    phase: Option<&str>,
) -> &'a MetricRow {
    let of = |row: &&MetricRow| {
        row.metric == metric && row.layer.is_none() && row.domain.as_deref() == domain
    };
    let mut rows = comparison.rows.iter().filter(of).filter(|row| row.phase == phase);
    let row = rows.next().unwrap_or_else(|| panic!("no {metric}"));
    assert!(rows.next().is_none(), "{metric} twice");
    row
}

#[test]
fn every_metric_has_rows() {
    let comparison = compare(&recorded(1), &recorded(2), &FAST);
    assert!(comparison.missing.is_empty(), "{:?}", comparison.missing);
    // In the order of the registry, in its unit, with a chance level where it names one.
    let mut found = Vec::new();
    for rows in comparison.rows.chunk_by(|a, b| a.metric == b.metric) {
        let metric = COMPARISON_METRICS.iter().find(|m| m.name == rows[0].metric).unwrap();
        found.push(metric.name);
        for row in rows {
            assert_eq!(row.unit, metric.unit, "{row:?}");
            assert_eq!(row.chance.is_some(), !metric.chance.is_empty(), "{row:?}");
        }
        // What is about all domains and phases comes first.
        let split = |row: &MetricRow| row.domain.is_some() || row.phase.is_some();
        assert!(rows.is_sorted_by_key(split), "{}", metric.name);
    }
    let expected: Vec<&str> = COMPARISON_METRICS.iter().map(|m| m.name).collect();
    assert_eq!(found, expected);
    // Beside each ratio what it is between.
    for side in &comparison.sides {
        let mut names: Vec<&str> = side.iter().map(|row| row.metric).collect();
        names.dedup();
        let of_each: Vec<&str> = COMPARISON_METRICS.iter().filter_map(|m| m.of_each).collect();
        assert_eq!(names, of_each);
    }
    let (names, row) = comparison.table()[comparison.rows.len()];
    assert_eq!((names, row.metric), ([Some("synthetic"), None], "throughput"));
}

#[test]
fn overlap_by_domain_and_phase() {
    // Two domains of a prompt token and a generated one each; k = 2 of 4.
    let two = |ids| {
        let layer = LayerData::from_ids(2, 4, 2, ids);
        let mut data = RunData::from_ids("two", &[("a", 2), ("b", 2)], vec![layer]).unwrap();
        data.manifest.prompts_hash = "two".to_owned();
        data.tokens.token_id = vec![5, 6, 7, 8];
        data.tokens.phase = vec![Phase::Prefill, Phase::Decode, Phase::Prefill, Phase::Decode];
        data
    };
    let base = two(vec![0, 1, 0, 1, 0, 1, 0, 1]);
    // One shared of two with another first; the same set in another order; the same twice.
    let new = two(vec![2, 1, 1, 0, 0, 1, 0, 1]);
    let comparison = compare(&base, &new, &FAST);
    for (domain, phase, overlap, same, flips) in [
        (None, None, 0.875, 0.75, 0.5),
        (None, Some("prefill"), 0.75, 0.5, 0.5),
        (None, Some("decode"), 1.0, 1.0, 0.5),
        (Some("a"), None, 0.75, 0.5, 1.0),
        (Some("b"), None, 1.0, 1.0, 0.0),
    ] {
        let value = |metric| only(&comparison, metric, domain, phase).value;
        close(value("routing_overlap"), overlap);
        close(value("same_experts"), same);
        close(value("top1_flips"), flips);
    }
    assert_eq!(only(&comparison, "routing_overlap", Some("a"), None).chance, Some(0.5));
    // Those over all come first, and are found.
    close(comparison.overall("routing_overlap").unwrap().value, 0.875);
    assert_eq!(comparison.by_layer("routing_overlap").count(), 1);
}

#[test]
fn output_by_domain() {
    let base = recorded(1);
    let mut new = base.clone();
    // The last of three generated tokens of both sequences of the first domain; half a nat in the second.
    for sequence in &base.sequences[..2] {
        new.tokens.token_id[sequence.end - 1] = 9;
    }
    for sequence in &base.sequences[2..4] {
        new.tokens.logprob.as_mut().unwrap()[sequence.start..sequence.end].fill(-1.5);
    }
    let comparison = compare(&base, &new, &FAST);
    let value = |metric, domain| only(&comparison, metric, domain, None).value;
    close(value("equal_tokens", Some("english")), 2.0 / 3.0);
    close(value("equal_tokens", Some("rust")), 1.0);
    close(value("equal_tokens", None), 16.0 / 18.0);
    close(value("logprob_difference", Some("rust")), 0.5);
    close(value("logprob_change", Some("rust")), -0.5);
    close(value("logprob_difference", Some("japanese")), 0.0);
    // Ten of 28 tokens: those after a difference are left out, and the differing ones too.
    close(value("logprob_change", None), -5.0 / 28.0);
}

#[test]
fn latency_and_memory_by_hand() {
    let base = recorded(1);
    let mut new = base.clone();
    for (row, phase) in new.steps.phase.iter().enumerate() {
        new.steps.duration_ns[row] = match phase {
            Phase::Prefill => 3000,
            // The first of three gaps is long: it moves the mean, not the median.
            Phase::Decode if row % 4 == 1 => 400,
            Phase::Decode => 100,
        };
        // The largest is what counts, in whichever phase.
        new.steps.bytes_in_use[row] = Some(if row % 4 == 3 { 3 << 20 } else { 1 });
        new.steps.bytes_reserved[row] = Some(1 << 20);
    }
    let comparison = compare(&base, &new, &FAST);
    let value = |metric, phase| only(&comparison, metric, None, phase).value;
    close(value("speed_ratio", Some("prefill")), 1.0 / 3.0);
    close(value("ttft_ratio", Some("prefill")), 3.0);
    close(value("speed_ratio", Some("decode")), 0.5);
    close(value("tpot_ratio", Some("decode")), 2.0);
    close(value("itl_ratio", Some("decode")), 1.0);
    close(value("bytes_in_use_ratio", None), 3.0);
    close(value("bytes_reserved_ratio", None), 0.5);
    close(value("rss_ratio", None), 1.0);
    let side = |run: usize, metric: &str| {
        comparison.sides[run].iter().find(|row| row.metric == metric).unwrap().value
    };
    // Two tokens in 1,000 and in 3,000 ns.
    close(side(0, "throughput"), 2e6);
    close(side(1, "throughput"), 2e6 / 3.0);
    close(side(1, "ttft"), 3000.0);
    close(side(1, "tpot"), 200.0);
    close(side(1, "peak_bytes_in_use"), f64::from(3 << 20));
}

#[test]
fn other_prompts_have_no_time_to_the_first_token_to_compare() {
    let base = recorded(1);
    let mut new = base.clone();
    new.manifest.prompts_hash = "other".to_owned();
    new.tokens.token_id[0] = 4;
    let comparison = compare(&base, &new, &FAST);
    let refusal = Refusal::Prompts { first: (0, 0) };
    assert!(comparison.missing.contains(&("speed", refusal)), "{:?}", comparison.missing);
    let has = |metric: &str| comparison.rows.iter().any(|row| row.metric == metric);
    assert!(!has("ttft_ratio") && has("tpot_ratio") && has("speed_ratio"));
    assert!(comparison.sides[0].iter().all(|row| row.metric != "ttft"));
}
