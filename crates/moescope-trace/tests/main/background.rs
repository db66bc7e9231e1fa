//! The writing thread: order, errors, and what is left when it is dropped.

use std::fs;

use moescope_trace::{BackgroundWriter, Run, RunWriter, TraceError};

use crate::common::*;

#[test]
fn writes_what_it_is_sent_in_order() {
    let (_dir, path) = scratch();
    let writer = RunWriter::create(&path, manifest(), false).unwrap();
    let writer = BackgroundWriter::with_queue(writer, 1).unwrap();
    for position in 0..20 {
        writer.send_tokens(tokens(0, position, 1)).unwrap();
        writer.send_routing(routing(0, position, 1)).unwrap();
    }
    writer.send_steps(steps(0, 20)).unwrap();
    writer.send_layers(layers()).unwrap();
    writer.edit_manifest(|manifest| manifest.sequences = 9).unwrap();
    assert_eq!(writer.finish().unwrap(), path);

    let run = Run::open(&path).unwrap();
    assert!(!run.is_partial());
    assert_eq!(run.manifest().sequences, 9);
    let tables = run.read().unwrap();
    assert_eq!(tables.tokens.position, (0..20).collect::<Vec<_>>());
    assert_eq!(tables.routing.rows(), 40);
    assert_eq!(tables.steps.rows(), 20);
    assert_eq!(tables.layers.unwrap().rows(), 3);
}

#[test]
fn the_writer_comes_back_for_the_last_fields() {
    let (_dir, path) = scratch();
    let writer = RunWriter::create(&path, manifest(), false).unwrap();
    let writer = BackgroundWriter::spawn(writer).unwrap();
    writer.send_tokens(tokens(0, 0, 2)).unwrap();
    let mut writer = writer.into_writer().unwrap();
    assert!(Run::open(&path).unwrap().is_partial());
    writer.manifest_mut().prompts_hash = "known now".into();
    writer.finish().unwrap();
    let run = Run::open(&path).unwrap();
    assert_eq!(run.manifest().prompts_hash, "known now");
    assert_eq!(run.read_tokens().unwrap().rows(), 2);
}

#[test]
fn dropped_it_keeps_what_was_queued_as_partial() {
    let (_dir, path) = scratch();
    let writer = RunWriter::create(&path, manifest(), false).unwrap();
    let writer = BackgroundWriter::spawn(writer).unwrap();
    for position in 0..5 {
        writer.send_tokens(tokens(0, position, 1)).unwrap();
    }
    drop(writer);
    let run = Run::open(&path).unwrap();
    assert!(run.is_partial());
    assert_eq!(run.read_tokens().unwrap().rows(), 5);
}

#[test]
fn an_error_surfaces_at_the_next_send_and_at_the_end() {
    let (_dir, path) = scratch();
    let writer = RunWriter::create(&path, manifest(), false).unwrap();
    // A file where the folder of the table must go.
    fs::write(path.join("tokens"), "in the way").unwrap();
    let writer = BackgroundWriter::with_queue(writer, 1).unwrap();
    let mut sent = 0;
    let error = loop {
        match writer.send_tokens(tokens(0, sent, 1)) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 1000, "the error never surfaced");
    };
    assert!(matches!(error, TraceError::Background(_)));
    assert!(error.to_string().contains("tokens"), "{error}");
    let again = writer.send_steps(steps(0, 1)).unwrap_err();
    assert_eq!(again.to_string(), error.to_string());
    let last = writer.finish().unwrap_err();
    assert_eq!(last.to_string(), error.to_string());
    assert!(Run::open(&path).unwrap().is_partial());
}

#[test]
fn an_error_in_the_last_batch_surfaces_at_the_end() {
    let (_dir, path) = scratch();
    let writer = RunWriter::create(&path, manifest(), false).unwrap();
    let writer = BackgroundWriter::spawn(writer).unwrap();
    let mut columns = tokens(0, 0, 2);
    columns.text.pop();
    writer.send_tokens(columns).unwrap();
    let error = writer.finish().unwrap_err();
    assert!(error.to_string().contains("`text` has 1 values, expected 2"), "{error}");
    assert!(Run::open(&path).unwrap().is_partial());
}

#[test]
fn a_panic_on_the_thread_is_an_error() {
    let (_dir, path) = scratch();
    let writer = RunWriter::create(&path, manifest(), false).unwrap();
    let writer = BackgroundWriter::spawn(writer).unwrap();
    writer.edit_manifest(|_| panic!("out of ideas")).unwrap();
    let text = writer.finish().unwrap_err().to_string();
    assert!(text.contains("panicked (out of ideas)"), "{text}");
    assert!(Run::open(&path).unwrap().is_partial());
}
