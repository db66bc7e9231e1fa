//! What opens as a run, and what is said of what does not.

use std::fs;
use std::path::Path;

use moescope_trace::manifest::{LayersKept, Manifest};
use moescope_trace::{Run, RunWriter, TraceError};

use crate::common::*;

fn open_error(path: &Path) -> TraceError {
    Run::open(path).unwrap_err()
}

#[test]
fn a_newer_schema_is_named_before_its_fields_are_missed() {
    let (_dir, path) = scratch();
    fs::create_dir(&path).unwrap();
    fs::write(path.join("manifest.json"), r#"{"schema_version": 7, "new": {}}"#).unwrap();
    let error = open_error(&path);
    assert!(matches!(error, TraceError::UnsupportedSchema { found: 7, supported: 1, .. }));
    let text = error.to_string();
    assert!(text.contains("schema version 7") && text.contains("reads version 1"), "{text}");
    assert!(text.contains("manifest.json"), "{text}");
}

/// Fields added within schema version 1 are absent where they say nothing, and may be absent anywhere.
#[test]
fn a_manifest_from_before_models_could_be_cut() {
    let whole = serde_json::to_string(&manifest()).unwrap();
    assert!(!whole.contains("layers_kept") && !whole.contains("rumour"), "{whole}");
    let read: Manifest = serde_json::from_str(&whole).unwrap();
    assert_eq!((read.model.layers_kept, read.model.rumour), (None, false));

    let mut cut = manifest();
    cut.model.layers_kept = Some(LayersKept { kept: 2, of: 30 });
    cut.model.rumour = true;
    let read: Manifest = serde_json::from_str(&serde_json::to_string(&cut).unwrap()).unwrap();
    assert_eq!(read, cut);
}

#[test]
fn what_is_not_a_run() {
    let (dir, path) = scratch();
    let text = open_error(&path).to_string();
    assert!(text.contains("there is nothing there") && text.contains("run"), "{text}");

    let text = open_error(dir.path()).to_string();
    assert!(text.contains("it has no manifest.json"), "{text}");

    fs::write(&path, "text").unwrap();
    let text = open_error(&path).to_string();
    assert!(text.contains("it is a file"), "{text}");

    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("manifest.json"), r#"{"name": "a web page"}"#).unwrap();
    let error = open_error(&other);
    assert!(matches!(error, TraceError::NotARun { .. }));
    assert!(error.to_string().contains("no schema_version"), "{error}");
}

#[test]
fn broken_manifests() {
    let (_dir, path) = scratch();
    small_run(&path);
    let file = path.join("manifest.json");
    let whole = fs::read_to_string(&file).unwrap();

    let cases = [
        ("garbage \u{0}".to_string(), "line 1"),
        (whole[..whole.len() / 2].to_string(), "EOF"),
        (whole.replace("\"moe\":", "\"mow\":"), "missing field `moe`"),
        (whole.replace("\"complete\"", "\"finished\""), "unknown variant `finished`"),
        (String::new(), "EOF"),
        (whole.replace("\"schema_version\": 1", "\"schema_version\": \"one\""), "invalid type"),
    ];
    for (text, reason) in cases {
        fs::write(&file, &text).unwrap();
        let error = open_error(&path);
        assert!(matches!(error, TraceError::BrokenManifest { .. }), "{text}: {error}");
        let said = error.to_string();
        assert!(said.contains(reason) && said.contains("manifest.json"), "{said}");
    }

    fs::write(&file, b"\xff\xfe{}").unwrap();
    assert!(matches!(open_error(&path), TraceError::BrokenManifest { .. }));
}

/// A run killed before its first part.
#[test]
fn a_run_without_parts_is_empty_and_typed() {
    let (_dir, path) = scratch();
    drop(RunWriter::create(&path, manifest(), false).unwrap());
    fs::create_dir(path.join("tokens")).unwrap();

    let run = Run::open(&path).unwrap();
    assert!(run.is_partial());
    let tokens = run.tokens().unwrap().collect().unwrap();
    assert_eq!((tokens.height(), tokens.width()), (0, 8));
    let routing = run.routing().unwrap().collect().unwrap();
    assert_eq!((routing.height(), routing.width()), (0, 7));
    assert_eq!(run.steps().unwrap().collect().unwrap().width(), 10);
    assert!(run.layers().unwrap().is_none());

    let tables = run.read().unwrap();
    assert!(tables.tokens.is_empty() && tables.routing.is_empty() && tables.steps.is_empty());
    assert_eq!(tables.routing.weights, None);
}

#[test]
fn parts_under_way_and_foreign_files_are_ignored() {
    let (_dir, path) = scratch();
    small_run(&path);
    for name in [".part-00001.parquet.tmp", "part-00001.parquet.crdownload", "notes.parquet"] {
        fs::write(path.join("tokens").join(name), "half a file").unwrap();
    }
    let run = Run::open(&path).unwrap();
    assert_eq!(run.read_tokens().unwrap().rows(), 4);
    assert_eq!(run.tokens().unwrap().collect().unwrap().height(), 4);
}

#[test]
fn parts_are_read_in_the_order_of_their_numbers() {
    let (_dir, path) = scratch();
    let mut writer = RunWriter::create(&path, manifest(), false).unwrap();
    for position in 0..3 {
        writer.write_tokens(&tokens(0, position, 1)).unwrap();
    }
    // Left unfinished: gaps in the numbers are allowed.
    drop(writer);
    let folder = path.join("tokens");
    fs::rename(folder.join("part-00001.parquet"), folder.join("part-99999.parquet")).unwrap();
    fs::rename(folder.join("part-00002.parquet"), folder.join("part-100000.parquet")).unwrap();
    let run = Run::open(&path).unwrap();
    assert_eq!(run.read_tokens().unwrap().position, [0, 1, 2]);
    let frame = run.tokens().unwrap().collect().unwrap();
    let positions = frame.column("position").unwrap().u32().unwrap();
    assert_eq!(positions.iter().flatten().collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn a_complete_run_misses_no_part() {
    let (_dir, path) = scratch();
    let mut writer = RunWriter::create(&path, manifest(), false).unwrap();
    for position in 0..3 {
        writer.write_tokens(&tokens(0, position, 1)).unwrap();
    }
    writer.finish().unwrap();
    fs::remove_file(path.join("tokens/part-00001.parquet")).unwrap();
    let run = Run::open(&path).unwrap();
    let error = run.read_tokens().unwrap_err();
    assert!(matches!(error, TraceError::MissingPart { missing: 1, .. }));
    assert!(error.to_string().contains("part 00001"), "{error}");
    assert!(run.tokens().is_err());
}
