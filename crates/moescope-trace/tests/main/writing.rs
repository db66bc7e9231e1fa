//! What a writer refuses, what it replaces, and what it says when the disk does not play along.

use std::fs;

use moescope_trace::manifest::Status;
use moescope_trace::{
    LayerColumns, RoutingColumns, Run, RunWriter, StepColumns, TokenColumns, TraceError,
};

use crate::common::*;

#[test]
fn a_run_is_partial_until_it_is_finished() {
    let (_dir, path) = scratch();
    let mut writer = RunWriter::create(&path, manifest(), false).unwrap();
    assert!(Run::open(&path).unwrap().is_partial());
    assert_eq!(writer.manifest().status, Status::Partial);
    writer.write_tokens(&tokens(0, 0, 2)).unwrap();
    writer.manifest_mut().prompts_hash = "late".into();
    writer.sync_manifest().unwrap();
    let run = Run::open(&path).unwrap();
    assert!(run.is_partial());
    assert_eq!(run.manifest().prompts_hash, "late");
    assert_eq!(run.read_tokens().unwrap().rows(), 2);
    writer.finish().unwrap();
    assert!(!Run::open(&path).unwrap().is_partial());
}

#[test]
fn empty_tables_make_no_part() {
    let (_dir, path) = scratch();
    let mut writer = RunWriter::create(&path, manifest(), false).unwrap();
    writer.write_tokens(&TokenColumns::default()).unwrap();
    writer.write_routing(&RoutingColumns::default()).unwrap();
    writer.write_steps(&StepColumns::default()).unwrap();
    writer.write_layers(&LayerColumns::default()).unwrap();
    writer.finish().unwrap();
    assert_eq!(names(&path), ["manifest.json"]);
}

#[test]
fn columns_of_different_lengths_are_refused_and_leave_nothing() {
    let (_dir, path) = scratch();
    let mut writer = RunWriter::create(&path, manifest(), false).unwrap();
    let mut columns = tokens(0, 0, 3);
    columns.token_id.pop();
    let error = writer.write_tokens(&columns).unwrap_err();
    assert!(matches!(
        error,
        TraceError::ColumnLength { table: "tokens", column: "token_id", found: 2, expected: 3 }
    ));
    let mut columns = steps(0, 2);
    columns.rss_bytes.clear();
    let text = writer.write_steps(&columns).unwrap_err().to_string();
    assert!(text.contains("steps: column `rss_bytes` has 0 values, expected 2"), "{text}");
    let mut columns = routing(0, 0, 2);
    columns.experts_total = 8;
    columns.probs = Some(vec![0.0; 31]);
    let text = writer.write_routing(&columns).unwrap_err().to_string();
    assert!(text.contains("`probs` has 31 values, expected 32"), "{text}");
    // No rows, yet values: as wrong as too few.
    let columns = TokenColumns { token_id: vec![1], ..Default::default() };
    assert!(writer.write_tokens(&columns).is_err());
    assert_eq!(names(&path), ["manifest.json"]);
}

#[test]
fn an_existing_path_needs_force() {
    let (_dir, path) = scratch();
    small_run(&path);
    let error = RunWriter::create(&path, manifest(), false).unwrap_err();
    assert!(matches!(error, TraceError::OutputExists { .. }));
    assert!(error.to_string().contains("--force"), "{error}");
    assert_eq!(Run::open(&path).unwrap().read_tokens().unwrap().rows(), 4, "left alone");
}

#[test]
fn force_replaces_a_run_and_keeps_what_is_not_of_it() {
    let (_dir, path) = scratch();
    small_run(&path);
    fs::write(path.join("routing/.part-00001.parquet.tmp"), "half").unwrap();
    fs::write(path.join("notes.md"), "mine").unwrap();
    fs::write(path.join("steps/notes.md"), "mine").unwrap();

    let mut writer = RunWriter::create(&path, manifest(), true).unwrap();
    let run = Run::open(&path).unwrap();
    assert!(run.is_partial());
    assert!(run.read_tokens().unwrap().is_empty(), "old parts are gone");
    assert_eq!(names(&path), ["manifest.json", "notes.md", "steps"]);
    assert_eq!(names(&path.join("steps")), ["notes.md"]);
    writer.write_tokens(&tokens(0, 0, 1)).unwrap();
    writer.finish().unwrap();
    assert_eq!(Run::open(&path).unwrap().read_tokens().unwrap().rows(), 1);
}

/// A run of a newer schema is still a run.
#[test]
fn force_replaces_newer_runs_and_empty_directories() {
    let (_dir, path) = scratch();
    fs::create_dir(&path).unwrap();
    RunWriter::create(&path, manifest(), true).unwrap().finish().unwrap();
    fs::write(path.join("manifest.json"), r#"{"schema_version": 9}"#).unwrap();
    RunWriter::create(&path, manifest(), true).unwrap().finish().unwrap();
    assert_eq!(Run::open(&path).unwrap().manifest().schema_version, 1);
}

#[test]
fn force_refuses_what_is_not_a_run() {
    let (dir, path) = scratch();
    let refused = |reason: &str| {
        let error = RunWriter::create(&path, manifest(), true).unwrap_err();
        assert!(matches!(error, TraceError::WillNotReplace { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    };
    fs::write(&path, "precious").unwrap();
    refused("it is a file");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();

    // The tables' folder names alone do not make a run.
    fs::create_dir_all(path.join("tokens")).unwrap();
    fs::write(path.join("tokens/part-00000.parquet"), "precious").unwrap();
    refused("no manifest.json");
    for (manifest, reason) in [
        ("[1]", "not a JSON object"),
        ("junk", "not a JSON object"),
        (r#"{"manifest_version": 3}"#, "no schema_version"),
        (r#"{"schema_version": "v1"}"#, "no schema_version"),
    ] {
        fs::write(path.join("manifest.json"), manifest).unwrap();
        refused(reason);
        assert_eq!(fs::read_to_string(path.join("manifest.json")).unwrap(), manifest);
    }
    assert_eq!(fs::read_to_string(path.join("tokens/part-00000.parquet")).unwrap(), "precious");
    assert_eq!(names(dir.path()), ["run"]);
}

/// Links: the directory behind one may be replaced, a folder behind one is not emptied.
#[cfg(unix)]
#[test]
fn force_does_not_reach_through_links() {
    use std::os::unix::fs::symlink;
    let (dir, path) = scratch();
    let precious = dir.path().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("part-00000.parquet"), "precious").unwrap();
    small_run(&path);
    symlink(&precious, path.join("layers")).unwrap();
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();

    RunWriter::create(&link, manifest(), true).unwrap().finish().unwrap();
    assert_eq!(names(&path), ["manifest.json"]);
    assert_eq!(names(&precious), ["part-00000.parquet"]);

    let dangling = dir.path().join("dangling");
    symlink(dir.path().join("nothing"), &dangling).unwrap();
    let error = RunWriter::create(&dangling, manifest(), true).unwrap_err();
    assert!(error.to_string().contains("link to nothing"), "{error}");
}

#[test]
fn an_output_below_a_file() {
    let (_dir, path) = scratch();
    fs::write(&path, "a file").unwrap();
    let error = RunWriter::create(&path.join("run"), manifest(), false).unwrap_err();
    assert!(matches!(error, TraceError::Io { .. }));
    let text = error.to_string();
    assert!(text.contains("cannot create") && text.contains("a file stands where"), "{text}");
}

/// Mode bits do not bind root; `/sys` takes new directories from nobody (read-only in containers).
#[cfg(target_os = "linux")]
#[test]
fn an_output_that_cannot_be_written() {
    let path = std::path::Path::new("/sys/moescope-run");
    let text = RunWriter::create(path, manifest(), false).unwrap_err().to_string();
    assert!(text.contains("cannot create /sys/moescope-run"), "{text}");
    assert!(text.contains("permission denied") || text.contains("read-only"), "{text}");
}

/// The kernel's own full device stands in for a full disk: the part under way is a link to it.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let (_dir, path) = scratch();
    let mut writer = RunWriter::create(&path, manifest(), false).unwrap();
    writer.write_tokens(&tokens(0, 0, 2)).unwrap();
    let temporary = path.join("tokens/.part-00001.parquet.tmp");
    std::os::unix::fs::symlink("/dev/full", &temporary).unwrap();
    let text = writer.write_tokens(&tokens(0, 2, 2)).unwrap_err().to_string();
    assert!(text.contains("tokens/part-00001.parquet: the disk is full"), "{text}");
    assert!(!temporary.is_symlink(), "the half file is gone");
    let run = Run::open(&path).unwrap();
    assert_eq!((run.is_partial(), run.read_tokens().unwrap().rows()), (true, 2));
    // With space again the same part can be written.
    writer.write_tokens(&tokens(0, 2, 2)).unwrap();
    writer.finish().unwrap();
    assert_eq!(Run::open(&path).unwrap().read_tokens().unwrap().rows(), 4);
}
