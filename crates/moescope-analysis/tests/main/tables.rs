//! From the tables of a run directory to dense arrays.

use moescope_analysis::{NO_EXPERT, RunData, analyze_data};
use moescope_trace::manifest::MoeLayer;
use moescope_trace::{Lists, Manifest, Phase, RoutingTable, RunTables, TokenTable};

use crate::support::{FAST, SMALL, uniform};

/// Two sequences generated as a batch, so that their tokens alternate; layers 1 and 4, k = 2.
fn tables() -> (Manifest, RunTables) {
    let mut manifest = uniform(SMALL, 1).manifest;
    manifest.moe.layers =
        [1, 4].map(|layer| MoeLayer { layer, experts: 4, top_k: 2, shared_experts: 0 }).into();
    let tokens = TokenTable {
        sequence: vec![3, 8, 3, 8],
        position: vec![0, 0, 1, 1],
        step: vec![0, 0, 1, 1],
        phase: vec![Phase::Prefill, Phase::Prefill, Phase::Decode, Phase::Decode],
        token_id: vec![30, 80, 31, 81],
        text: ["a", "b", "c", "d"].map(str::to_owned).into(),
        domain: vec![0, 1, 0, 1],
        domains: vec!["x".to_owned(), "y".to_owned()],
        logprob: vec![None, None, Some(-1.0), Some(-2.0)],
    };
    // Layer by layer, the second one backwards.
    let routing = RoutingTable {
        sequence: vec![3, 8, 3, 8, 8, 3, 8, 3],
        position: vec![0, 0, 1, 1, 1, 1, 0, 0],
        layer: vec![1, 1, 1, 1, 4, 4, 4, 4],
        lists: Lists::Fixed(2),
        experts: vec![0, 1, 0, 2, 0, 3, 1, 2, 3, 2, 3, 1, 3, 0, 2, 0],
        weights: None,
        entropy: Some((0u8..8).map(f32::from).collect()),
        ..RoutingTable::default()
    };
    let token_of_row = vec![0, 1, 2, 3, 3, 2, 1, 0];
    (manifest, RunTables { tokens, routing, token_of_row, ..RunTables::default() })
}

#[test]
fn tokens_are_put_in_order() {
    let (manifest, tables) = tables();
    let data = RunData::from_tables(manifest, false, tables).unwrap();
    let sequences: Vec<_> =
        data.sequences.iter().map(|s| (s.id, s.domain, s.start, s.end)).collect();
    assert_eq!(sequences, [(3, 0, 0, 2), (8, 1, 2, 4)]);
    assert_eq!(data.tokens.token_id, [30, 31, 80, 81]);
    assert_eq!(data.layers[0].ids, [0, 1, 0, 3, 0, 2, 1, 2]);
    assert_eq!(data.layers[1].ids, [2, 0, 3, 1, 3, 0, 3, 2]);
    assert_eq!(data.layers[1].entropy.as_deref().unwrap(), [7.0, 5.0, 6.0, 4.0]);
    assert!(data.layers[0].weights.is_none());
    let logprob = data.tokens.logprob.as_deref().unwrap();
    assert!(logprob[0].is_nan() && logprob[1] == -1.0);
    let analysis = analyze_data(&data, &FAST);
    assert_eq!((analysis.prefill_tokens, analysis.decode_tokens), (2, 2));
    assert_eq!(analysis.domains, ["x", "y"]);
}

#[test]
fn rows_with_fewer_experts() {
    let (manifest, mut tables) = tables();
    tables.routing.lists = Lists::Offsets(vec![0, 1, 3, 5, 7, 9, 11, 13, 15]);
    tables.routing.experts.remove(1);
    let data = RunData::from_tables(manifest, false, tables).unwrap();
    assert_eq!(data.layers[0].ids[..2], [0, NO_EXPERT]);
}

#[test]
fn no_logprob_is_not_recorded() {
    let (manifest, mut tables) = tables();
    tables.tokens.logprob = vec![None; 4];
    let data = RunData::from_tables(manifest, false, tables).unwrap();
    assert!(data.tokens.logprob.is_none());
}

#[test]
fn contradictions() {
    let (manifest, mut broken) = tables();
    broken.tokens.domain = vec![0, 1, 1, 1];
    let error = RunData::from_tables(manifest, false, broken).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tokens.domain, sequence 3, position 1: a sequence has one domain; found \"y\" after \"x\""
    );

    let (manifest, mut broken) = tables();
    broken.routing.layer[3] = 2;
    let error = RunData::from_tables(manifest, false, broken).unwrap_err();
    assert_eq!(
        error.to_string(),
        "routing.layer, sequence 8, position 1: manifest.json has no MoE layer 2"
    );

    let (mut manifest, broken) = tables();
    manifest.moe.layers[0].top_k = 1;
    let error = RunData::from_tables(manifest, false, broken).unwrap_err();
    assert_eq!(
        error.to_string(),
        "routing.experts, sequence 3, position 0: manifest.json says 1 experts per token at layer 1, \
         found 2"
    );
}
