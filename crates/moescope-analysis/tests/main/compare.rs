//! Two runs side by side.

use moescope_analysis::{
    Index, LayerData, Options, Refusal, RunData, TokenWise, analyze_data, compare, distinct_names,
    findings,
};
use moescope_trace::Phase;

use crate::support::{FAST, SMALL, close, run, uniform, uniformly};

fn two_tokens(ids: Vec<u16>) -> RunData {
    let layer = LayerData::from_ids(2, 4, 2, ids);
    RunData::from_ids("two", &[("a", 2)], vec![layer]).unwrap()
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
    assert_eq!(refused(&other), Refusal::Prompts);
    // Use of the experts is compared all the same.
    assert!(compare(&base, &other, &FAST).difference().is_some());

    let mut other = base.clone();
    other.tokens.token_id[1] = 9;
    assert_eq!(refused(&other), Refusal::PromptToken { sequence: 0, position: 1 });

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
    for refusal in [Refusal::Prompts, Refusal::Shape, Refusal::NoRouting, Refusal::NothingInCommon]
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
