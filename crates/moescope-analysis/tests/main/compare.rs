//! Two runs side by side.

use moescope_analysis::{
    Index, LayerData, Options, Refusal, RunData, TokenWise, analyze_data, compare, distinct_names,
    findings,
};
use moescope_trace::Phase;

use crate::support::{FAST, SMALL, close, run, steps, uniform, uniformly};

fn two_tokens(ids: Vec<u16>) -> RunData {
    let layer = LayerData::from_ids(2, 4, 2, ids);
    let mut data = RunData::from_ids("two", &[("a", 2)], vec![layer]).unwrap();
    data.manifest.prompts_hash = "two".to_owned();
    data
}

#[test]
fn overlap_by_hand() {
    // {0, 1} and {1, 0} are one set; {2, 3} and {2, 0} share one of two.
    let comparison = compare(&two_tokens(vec![0, 1, 2, 3]), &two_tokens(vec![1, 0, 2, 0]), &FAST);
    assert_eq!(comparison.token_wise, TokenWise::Compared { tokens: 2, left_out: 0 });
    let overlap = comparison.overall("routing_overlap").unwrap();
    close(overlap.value, 0.75);
    assert_eq!(overlap.chance, Some(0.5));
    let same = comparison.overall("same_experts").unwrap();
    close(same.value, 0.5);
    // One of the six pairs out of four.
    close(same.chance.unwrap(), 1.0 / 6.0);
    let layers: Vec<u16> = comparison.by_layer("routing_overlap").map(|(layer, _)| layer).collect();
    assert_eq!(layers, [2]);
    // c: [1, 1, 1, 1] and [2, 1, 1, 0], mean 1.
    let difference = comparison.difference().unwrap();
    assert_eq!(difference.values, [[1.0, 0.0, 0.0, -1.0]]);
}

#[test]
fn equal_runs() {
    let data = uniform(SMALL, 3);
    let comparison = compare(&data, &data.clone(), &FAST);
    assert_eq!(comparison.overall("routing_overlap").unwrap().value, 1.0);
    for row in comparison.rows.iter().filter(|row| row.metric == "utilisation_difference") {
        // Resampled together, equal runs differ in no resample.
        assert_eq!((row.value, row.interval), (0.0, Some((0.0, 0.0))));
    }
    let analyses = [analyze_data(&data, &FAST), analyze_data(&data, &FAST)];
    let found = findings(&analyses, &[comparison]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        found[0].headline,
        "synthetic and synthetic chose the same experts for every one of 1,800 tokens"
    );
}

#[test]
fn independent_runs_overlap_by_chance() {
    let (a, b) = (uniform(SMALL, 3), uniform(SMALL, 4));
    let comparison = compare(&a, &b, &Options::default());
    for (_, row) in comparison.by_layer("routing_overlap") {
        let (low, high) = row.interval.unwrap();
        assert!(low < 0.125 && 0.125 < high, "{row:?}");
    }
    let analyses = [analyze_data(&a, &FAST), analyze_data(&b, &FAST)];
    let found = findings(&analyses, &[comparison]);
    assert!(found.iter().all(|finding| !finding.headline.starts_with("Expert")), "{found:?}");
}

#[test]
fn one_layer_that_moved() {
    let base = uniform(SMALL, 3);
    let mut other = base.clone();
    other.name = "other".to_owned();
    // Expert 5 of layer 1 hands every second token to expert 6.
    let mut hit = 0;
    let ids = &mut other.layers[1].ids;
    for token in ids.chunks_exact_mut(2) {
        if token.contains(&5) && !token.contains(&6) {
            hit += 1;
            if hit % 2 == 0 {
                token.iter_mut().filter(|id| **id == 5).for_each(|id| *id = 6);
            }
        }
    }
    let options = Options::default();
    let comparison = compare(&base, &other, &options);
    assert_eq!(comparison.by_layer("routing_overlap").next().unwrap().1.value, 1.0);
    let analyses = [analyze_data(&base, &options), analyze_data(&other, &options)];
    let found = findings(&analyses, &[comparison]);
    let overlap = found
        .iter()
        .find(|finding| finding.headline.contains("of the experts chosen are the same"))
        .unwrap();
    assert!(overlap.detail.contains("Layer 1 moved most"), "{overlap:?}");
    assert!(overlap.headline.ends_with("12.5 % would be by chance"), "{overlap:?}");
    let moved = found.iter().find(|finding| finding.headline.starts_with("Expert")).unwrap();
    assert_eq!(moved.figure, Some("utilisation-difference"));
    assert!(moved.headline.contains("of layer 1"), "{moved:?}");
}

#[test]
fn generated_tokens_part_ways() {
    let mut base = two_tokens(vec![0, 1, 2, 3]);
    base.tokens.phase = vec![Phase::Prefill, Phase::Decode];
    let mut other = base.clone();
    other.tokens.token_id[1] = 9;
    let comparison = compare(&base, &other, &FAST);
    assert_eq!(comparison.token_wise, TokenWise::Compared { tokens: 1, left_out: 1 });
}

#[test]
fn refusals() {
    let base = two_tokens(vec![0, 1, 2, 3]);
    let refused = |other: &RunData| match compare(&base, other, &FAST).token_wise {
        TokenWise::Refused(refusal) => refusal,
        compared => panic!("{compared:?}"),
    };
    let mut other = base.clone();
    other.manifest.prompts_hash = "other".to_owned();
    assert_eq!(refused(&other), Refusal::NoTokenIds);
    // Use of the experts is compared all the same.
    assert!(compare(&base, &other, &FAST).difference().is_some());

    // Both know their tokens.
    let mut known = base.clone();
    known.tokens.token_id = vec![7, 8];
    let mut other = known.clone();
    other.tokens.token_id[1] = 9;
    let refusal = Refusal::PromptToken { sequence: 0, position: 1 };
    assert_eq!(compare(&known, &other, &FAST).token_wise, TokenWise::Refused(refusal));

    let mut other = base.clone();
    other.sequences[0].id = 4;
    assert_eq!(refused(&other), Refusal::NothingInCommon);

    let other = RunData::from_ids(
        "wide",
        &[("a", 2)],
        vec![LayerData::from_ids(2, 8, 2, vec![0, 1, 2, 3])],
    )
    .unwrap();
    assert_eq!(refused(&other), Refusal::Shape);
    let comparison = compare(&base, &other, &FAST);
    assert_eq!(comparison.utilisation, Some(Refusal::Shape));
    assert!(comparison.rows.is_empty());

    let other = RunData::from_ids("dense", &[("a", 2)], vec![]).unwrap();
    assert_eq!(refused(&other), Refusal::NoRouting);
    for refusal in
        [Refusal::NoTokenIds, Refusal::Shape, Refusal::NoRouting, Refusal::NothingInCommon]
    {
        assert!(refusal.to_string().len() > 20);
    }
}

#[test]
fn a_partial_run_is_compared_on_what_it_has() {
    let base = uniform(SMALL, 3);
    let mut other = base.clone();
    let kept = other.sequences[9].end;
    other.partial = true;
    other.sequences.truncate(10);
    other.tokens.position.truncate(kept);
    other.tokens.token_id.truncate(kept);
    other.tokens.step.truncate(kept);
    other.tokens.phase.truncate(kept);
    for layer in &mut other.layers {
        layer.ids.truncate(kept * layer.top_k);
    }
    other.check().unwrap();
    let comparison = compare(&base, &other, &FAST);
    assert_eq!(comparison.token_wise, TokenWise::Compared { tokens: 400, left_out: 1400 });
    assert_eq!(comparison.overall("routing_overlap").unwrap().value, 1.0);
}

#[test]
fn a_real_difference_between_prompt_sets() {
    let options = Options::default();
    let skewed = |share: f64, seed, hash: &str| {
        let mut data = run(SMALL, seed, |_, layer, _, rng, chosen| {
            if layer == 0 && rng.unit() < share {
                chosen.push(2);
            }
            uniformly(rng, 16, 2, chosen);
        });
        data.manifest.prompts_hash = hash.to_owned();
        data
    };
    let (a, b) = (skewed(0.1, 1, "x"), skewed(0.5, 2, "y"));
    let comparison = compare(&a, &b, &options);
    let row = comparison
        .rows
        .iter()
        .find(|row| row.layer == Some(0) && row.index == Some(Index::Expert(2)))
        .unwrap();
    let (low, high) = row.interval.unwrap();
    // (0.5 + 0.5/8) - (0.1 + 0.9/8) = 0.35 of tokens, over an even share of 1/8.
    assert!(low < 2.8 && 2.8 < high && low > 2.0, "{row:?}");
}

#[test]
fn names_tell_runs_apart() {
    let manifest = |backend: &str, dtype: &str| {
        let mut manifest = uniform(SMALL, 1).manifest;
        manifest.device.backend = backend.to_owned();
        manifest.model.dtype = dtype.to_owned();
        manifest
    };
    let runs = [manifest("flex", "f32"), manifest("wgpu", "f32"), manifest("wgpu", "f32")];
    let names = distinct_names(&runs.iter().collect::<Vec<_>>());
    assert_eq!(names, ["synthetic (flex)", "synthetic (wgpu) #1", "synthetic (wgpu) #2"]);
    let runs = [manifest("flex", "f32"), manifest("flex", "bf16")];
    let names = distinct_names(&runs.iter().collect::<Vec<_>>());
    assert_eq!(names, ["synthetic (f32)", "synthetic (bf16)"]);
    assert_eq!(distinct_names(&[&runs[0]]), ["synthetic"]);
}

#[test]
fn flips_and_shift_by_hand() {
    let comparison = compare(&two_tokens(vec![0, 1, 2, 3]), &two_tokens(vec![1, 0, 2, 0]), &FAST);
    // 0 became 1, 2 stayed.
    let flips = comparison.overall("top1_flips").unwrap();
    close(flips.value, 0.5);
    close(flips.chance.unwrap(), 0.75);
    // [1, 1, 1, 1]/4 and [2, 1, 1, 0]/4, the middle [3, 2, 2, 1]/8.
    let term = |p: f64, m: f64| if p > 0.0 { p * (p / m).ln() } else { 0.0 };
    let shift = [(0.25, 0.5, 0.375), (0.25, 0.25, 0.25), (0.25, 0.25, 0.25), (0.25, 0.0, 0.125)];
    let expected: f64 = shift.iter().map(|(p, q, m)| (term(*p, *m) + term(*q, *m)) / 2.0).sum();
    let found = comparison.overall("distribution_shift").unwrap();
    close(found.value, expected);
    // (4 - 2) / (8 * 2) (1/2 + 1/2): two independent samples of two tokens, as overlap and flips have it.
    close(found.chance.unwrap(), 0.125);
    assert_eq!(comparison.by_layer("distribution_shift").count(), 1);
}

/// Six sequences of two prompt tokens and four generated ones.
fn generated(seed: u64) -> RunData {
    let mut data = uniform(crate::support::Shape { tokens: 6, ..SMALL }, seed);
    for sequence in &data.sequences {
        data.tokens.phase[sequence.start + 2..sequence.end].fill(Phase::Decode);
    }
    let tokens = data.len();
    data.tokens.token_id = (0..tokens as u32).map(|at| at % 7 + 1).collect();
    data
}

fn why<'a>(comparison: &'a moescope_analysis::Comparison, part: &str) -> Option<&'a Refusal> {
    comparison.missing.iter().find(|(other, _)| *other == part).map(|(_, refusal)| refusal)
}

#[test]
fn output_agreement() {
    let base = generated(1);
    let mut other = base.clone();
    // The third generated token of every second sequence differs: two of four are equal there.
    for sequence in base.sequences.iter().step_by(2) {
        other.tokens.token_id[sequence.start + 4] = 99;
    }
    let comparison = compare(&base, &other, &FAST);
    let equal = comparison.overall("equal_tokens").unwrap();
    // 23 of 45 sequences have half of their four tokens.
    close(equal.value, (23.0 * 2.0 + 22.0 * 4.0) / (45.0 * 4.0));
    assert!(equal.interval.is_some());
    assert_eq!(why(&comparison, "log-probabilities"), Some(&Refusal::NoLogprobs));
    close(compare(&base, &base.clone(), &FAST).overall("equal_tokens").unwrap().value, 1.0);

    // Log-probabilities 0.5 apart, to either side by turns, over the tokens before the difference.
    let (mut base, mut other) = (base, other);
    let tokens = base.len();
    base.tokens.logprob = Some(vec![-1.0; tokens]);
    other.tokens.logprob =
        Some((0..tokens).map(|at| if at % 2 == 0 { -1.5 } else { -0.5 }).collect());
    base.tokens.logprob.as_mut().unwrap()[0] = f32::NAN;
    let comparison = compare(&base, &other, &FAST);
    close(comparison.overall("logprob_difference").unwrap().value, 0.5);
    // One token of the first kind fewer, of 23 * 4 + 22 * 6.
    close(comparison.overall("logprob_change").unwrap().value, 0.5 / 223.0);

    other.manifest.settings.sampling.temperature = 0.7;
    assert_eq!(why(&compare(&base, &other, &FAST), "output"), Some(&Refusal::Sampled));
    other.manifest.settings.sampling.temperature = 0.0;
    other.tokens.phase.fill(Phase::Prefill);
    let comparison = compare(&base, &other, &FAST);
    assert!(why(&comparison, "output").is_some() && comparison.overall("equal_tokens").is_none());
}

#[test]
fn prompts_that_differ_are_named() {
    let base = generated(1);
    let mut other = base.clone();
    other.manifest.prompts_hash = "other".to_owned();
    // The same tokens under another hash (a renamed domain) are the same tokens.
    assert!(matches!(compare(&base, &other, &FAST).token_wise, TokenWise::Compared { .. }));
    other.tokens.token_id[base.sequences[3].start + 1] = 99;
    let comparison = compare(&base, &other, &FAST);
    let refusal = Refusal::Prompts { first: (3, 1) };
    assert_eq!(comparison.token_wise, TokenWise::Refused(refusal.clone()));
    assert!(refusal.to_string().contains("first in sequence 3 at position 1"));
    assert_eq!(why(&comparison, "output"), Some(&refusal));
    // What needs no equal tokens is there.
    assert!(
        comparison.overall("distribution_shift").is_some() && comparison.difference().is_some()
    );
    // A prompt that goes on where the other's ends.
    let mut longer = base.clone();
    longer.manifest.prompts_hash = "longer".to_owned();
    longer.tokens.phase[base.sequences[0].start + 2] = Phase::Prefill;
    let refusal = Refusal::Prompts { first: (0, 2) };
    assert_eq!(compare(&base, &longer, &FAST).token_wise, TokenWise::Refused(refusal));
}

#[test]
fn speed_and_memory() {
    let mut base = generated(1);
    base.manifest.settings.timing_mode = moescope_trace::manifest::TimingMode::EndToEnd;
    // One prefill pass per sequence and four of decode; 10 ns per prompt token, 100 per generated one,
    // with noise that both runs share.
    let noise = |sequence: usize| (sequence % 5) as u64;
    let mut passes = Vec::new();
    for at in 0..base.sequences.len() {
        passes.push((Phase::Prefill, 2, 20 + noise(at)));
        passes.extend([(Phase::Decode, 1, 100 + noise(at)); 4]);
    }
    base.steps = steps(&passes);
    for (at, sequence) in base.sequences.iter().enumerate() {
        let first = at as u32 * 5;
        let steps = [first, first, first + 1, first + 2, first + 3, first + 4];
        base.tokens.step[sequence.start..sequence.end].copy_from_slice(&steps);
    }
    base.steps.rss_bytes = vec![Some(1000); passes.len()];
    base.check().unwrap();
    let mut other = base.clone();
    other.steps.duration_ns.iter_mut().for_each(|time| *time *= 2);
    other.steps.rss_bytes = vec![Some(1500); passes.len()];
    let comparison = compare(&base, &other, &FAST);
    for phase in ["prefill", "decode"] {
        let mut rows = comparison.rows.iter().filter(|row| row.metric == "speed_ratio");
        let row = rows.find(|row| row.phase == Some(phase)).unwrap();
        close(row.value, 0.5);
        // The noise is shared, so the ratio has none.
        let (low, high) = row.interval.unwrap();
        close(low, 0.5);
        close(high, 0.5);
    }
    close(comparison.overall("rss_ratio").unwrap().value, 1.5);
    assert!(comparison.overall("bytes_in_use_ratio").is_none());
    let missing: Vec<_> = comparison.missing.iter().filter(|(part, _)| *part == "memory").collect();
    assert_eq!(missing.len(), 2, "{missing:?}");
    assert_eq!(missing[0].1.to_string(), "not recorded: device memory in use");
    assert_eq!(missing[1].1.to_string(), "not recorded: device memory reserved");

    other.manifest.device.adapter = "another".to_owned();
    let comparison = compare(&base, &other, &FAST);
    assert_eq!(why(&comparison, "speed"), Some(&Refusal::Machines(vec!["devices"])));
    assert!(comparison.rows.iter().all(|row| row.metric != "speed_ratio"));
    let across = moescope_analysis::compare_across(&base, &other, &FAST, true);
    assert!(across.rows.iter().any(|row| row.metric == "speed_ratio"));
    // As the gate sees machines: every field of a fingerprint that is about them.
    let mut another = base.clone();
    another.manifest.device.driver_version = Some("2".to_owned());
    another.manifest.host.os = "another".to_owned();
    let comparison = compare(&base, &another, &FAST);
    let machines = Refusal::Machines(vec!["drivers", "hosts"]);
    assert_eq!(why(&comparison, "speed"), Some(&machines));
    // Fewer sequences: samples that are not pairs.
    let mut fewer = base.clone();
    fewer.steps.step[..5].copy_from_slice(&[9000, 9001, 9002, 9003, 9004]);
    let row = compare(&base, &fewer, &FAST);
    let row = row.rows.iter().find(|row| row.metric == "speed_ratio").unwrap();
    assert!((row.value - 1.0).abs() < 0.1, "{row:?}");
    other.steps = Default::default();
    assert_eq!(why(&compare(&base, &other, &FAST), "speed"), Some(&Refusal::NoTimes));
}

#[test]
fn runs_of_ids_alone() {
    // No hash and no token ids, as an import may be: whether the prompts are the same is not known.
    let mut base = generated(1);
    base.tokens.token_id.fill(0);
    base.manifest.prompts_hash.clear();
    let comparison = compare(&base, &base.clone(), &FAST);
    assert_eq!(comparison.token_wise, TokenWise::Refused(Refusal::NoTokenIds));
    assert_eq!(why(&comparison, "output"), Some(&Refusal::NoTokenIds));
    // The use of experts needs no tokens.
    assert_eq!(comparison.overall("distribution_shift").unwrap().value, 0.0);
    assert!(comparison.difference().is_some() && comparison.overall("routing_overlap").is_none());
    // A hash says that the prompts are the same, and nothing of what was generated.
    base.manifest.prompts_hash = "same".to_owned();
    let comparison = compare(&base, &base.clone(), &FAST);
    let (tokens, left_out) = (45 * 2, 45 * 4);
    assert_eq!(comparison.token_wise, TokenWise::Compared { tokens, left_out });
    assert_eq!(why(&comparison, "output"), Some(&Refusal::NoTokenIds));
    assert_eq!(comparison.overall("routing_overlap").unwrap().value, 1.0);
    for part in ["log-probabilities", "speed"] {
        assert!(why(&comparison, part).is_some(), "{part}");
    }
    assert!(comparison.overall("equal_tokens").is_none());
    // Ids of one run alone say nothing more.
    let mut known = base.clone();
    known.tokens.token_id.fill(5);
    for (a, b) in [(&base, &known), (&known, &base)] {
        let found = compare(a, b, &FAST).token_wise;
        assert_eq!(found, TokenWise::Compared { tokens, left_out });
    }
}
