//! Tokens and routing brought together.

use moescope_trace::{
    Dropped, RoutingColumns, RoutingFields, Run, RunTables, RunWriter, TokenColumns,
};

use crate::common::*;

fn read(tokens: &[TokenColumns], routing: &[RoutingColumns]) -> Result<RunTables, String> {
    let (_dir, path) = scratch();
    let mut writer = RunWriter::create(&path, manifest(), false).unwrap();
    for part in tokens {
        writer.write_tokens(part).unwrap();
    }
    for part in routing {
        writer.write_routing(part).unwrap();
    }
    drop(writer);
    Run::open(&path).unwrap().read_with(RoutingFields::ALL).map_err(|error| error.to_string())
}

/// Every routing row points to its own token.
fn assert_linked(tables: &RunTables) {
    assert_eq!(tables.token_of_row.len(), tables.routing.rows());
    for (row, token) in tables.token_of_row.iter().enumerate() {
        let token = *token as usize;
        assert_eq!(tables.tokens.sequence[token], tables.routing.sequence[row]);
        assert_eq!(tables.tokens.position[token], tables.routing.position[row]);
    }
}

#[test]
fn a_whole_run_keeps_everything() {
    let tables =
        read(&[tokens(0, 0, 3), tokens(1, 0, 2)], &[routing(1, 0, 2), routing(0, 0, 3)]).unwrap();
    assert_eq!((tables.tokens.rows(), tables.routing.rows()), (5, 10));
    assert_eq!(tables.dropped, Dropped::default());
    assert_eq!(tables.token_of_row[..2], [3, 4]);
    assert_linked(&tables);
}

#[test]
fn tokens_without_routing_and_the_reverse_are_dropped() {
    // Position 0 has no routing, positions 3 and 4 no tokens.
    let tables = read(&[tokens(0, 0, 3)], &[routing(0, 1, 4)]).unwrap();
    assert_eq!(tables.tokens.position, [1, 2]);
    assert_eq!(tables.tokens.text, ["token 1", "token 2"]);
    assert_eq!(tables.tokens.logprob, [Some(-0.5), Some(-1.0)]);
    assert_eq!(tables.routing.position, [1, 2, 1, 2]);
    assert_eq!(tables.routing.layer, [1, 1, 3, 3]);
    assert_eq!(tables.routing.experts_of(1), [3, 4]);
    assert_eq!(tables.routing.weights.as_ref().unwrap().len(), 8);
    assert_eq!(tables.token_of_row, [0, 1, 0, 1]);
    assert_eq!(tables.dropped, Dropped { tokens: 1, routing_rows: 4 });
    assert_linked(&tables);
}

#[test]
fn a_token_needs_the_routing_of_every_layer() {
    let mut half = routing(0, 2, 1);
    half.sequence.pop();
    half.position.pop();
    half.layer.pop();
    half.experts.truncate(2);
    half.weights.truncate(2);
    half.entropy.pop();
    half.margin.pop();
    let tables = read(&[tokens(0, 0, 3)], &[routing(0, 0, 2), half]).unwrap();
    assert_eq!(tables.tokens.position, [0, 1]);
    assert_eq!(tables.dropped, Dropped { tokens: 1, routing_rows: 1 });
    assert_linked(&tables);
}

#[test]
fn ragged_and_optional_columns_are_cut_with_their_rows() {
    let mut full = routing(0, 0, 2);
    full.experts_total = 8;
    full.probs = Some((0..32).map(|value| value as f32).collect());
    full.output_norms = Some((0..8).map(|value| value as f32).collect());
    // The second part has no probs: the distribution is ragged. Position 0 has no token.
    let tables = read(&[tokens(0, 1, 2)], &[full, routing(0, 2, 1)]).unwrap();
    assert_eq!(tables.routing.position, [1, 1, 2, 2]);
    assert_eq!(tables.routing.probs_of(0).unwrap()[0], 8.0);
    assert_eq!(tables.routing.probs_of(1).unwrap()[0], 24.0);
    assert_eq!(tables.routing.probs_of(2), None);
    assert_eq!(tables.routing.output_norms_of(1), Some(&[6.0, 7.0][..]));
    assert!(tables.routing.output_norms_of(3).unwrap()[0].is_nan());
    assert_linked(&tables);
}

#[test]
fn contradictions_are_named() {
    let error = read(&[tokens(0, 0, 2), tokens(0, 1, 1)], &[]).unwrap_err();
    assert!(error.contains("tokens/ has sequence 0, position 1 twice"), "{error}");

    let error = read(&[tokens(0, 0, 2)], &[routing(0, 0, 2), routing(0, 1, 1)]).unwrap_err();
    assert!(error.contains("routing/ has sequence 0, position 1, layer 1 twice"), "{error}");

    let mut other = routing(0, 0, 1);
    other.layer[1] = 2;
    let error = read(&[tokens(0, 0, 1)], &[other]).unwrap_err();
    assert!(error.contains("layer 2, which is no MoE layer"), "{error}");

    let mut other = routing(0, 0, 1);
    other.experts[3] = EXPERTS;
    let error = read(&[tokens(0, 0, 1)], &[other]).unwrap_err();
    assert!(error.contains("expert 8 in layer 3, which has 8 experts"), "{error}");
}

/// A manifest may ask for more room than there is.
#[test]
fn impossible_top_k_is_refused_before_room_is_made() {
    for top_k in [0, EXPERTS + 1, u16::MAX] {
        let (_dir, path) = scratch();
        let mut odd = manifest();
        odd.moe.layers[0].top_k = top_k;
        let mut writer = RunWriter::create(&path, odd, false).unwrap();
        writer.write_tokens(&tokens(0, 0, 3)).unwrap();
        writer.finish().unwrap();
        let error = Run::open(&path).unwrap().read().unwrap_err().to_string();
        assert!(error.contains(&format!("top_k {top_k} in layer")), "{error}");
    }
}

#[test]
fn a_dense_model_keeps_its_tokens() {
    let (_dir, path) = scratch();
    let mut dense = manifest();
    dense.moe.layers.clear();
    let mut writer = RunWriter::create(&path, dense, false).unwrap();
    writer.write_tokens(&tokens(0, 0, 3)).unwrap();
    writer.finish().unwrap();
    let tables = Run::open(&path).unwrap().read().unwrap();
    assert_eq!(tables.tokens.rows(), 3);
    assert_eq!(tables.dropped, Dropped::default());
}
