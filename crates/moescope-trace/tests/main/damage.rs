//! Parts that are broken, or were written by something else: the error names the part and the column.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use moescope_trace::{Run, TraceError};
use polars::prelude::*;

use crate::common::*;

/// A complete run whose only tokens part is replaced by `frame`.
fn with_tokens(path: &Path, edit: impl FnOnce(DataFrame) -> DataFrame) -> Run {
    replace_part(path, "tokens", edit)
}

fn replace_part(path: &Path, folder: &str, edit: impl FnOnce(DataFrame) -> DataFrame) -> Run {
    small_run(path);
    let part = path.join(folder).join("part-00000.parquet");
    let frame = ParquetReader::new(File::open(&part).unwrap()).finish().unwrap();
    ParquetWriter::new(File::create(&part).unwrap()).finish(&mut edit(frame)).unwrap();
    Run::open(path).unwrap()
}

fn with_column(mut frame: DataFrame, column: impl IntoColumn) -> DataFrame {
    frame.with_column(column.into_column()).unwrap();
    frame
}

#[test]
fn a_missing_column() {
    let (_dir, path) = scratch();
    let run = with_tokens(&path, |frame| frame.drop("token_id").unwrap());
    for error in [run.read_tokens().unwrap_err(), run.tokens().err().unwrap()] {
        assert!(matches!(error, TraceError::MissingColumn { column: "token_id", .. }));
        let text = error.to_string();
        assert!(text.contains("tokens/part-00000.parquet"), "{text}");
        assert!(text.contains("`token_id` (u32)") && text.contains("`domain`"), "{text}");
    }
    // The other tables are not touched by it.
    assert_eq!(run.read_steps().unwrap().rows(), 4);
}

#[test]
fn a_column_of_another_type() {
    let (_dir, path) = scratch();
    let run = with_tokens(&path, |frame| {
        with_column(frame, Series::new("position".into(), [0_i64, 1, 2, 3]))
    });
    for error in [run.read_tokens().unwrap_err(), run.tokens().err().unwrap()] {
        let text = error.to_string();
        assert!(matches!(error, TraceError::WrongType { column: "position", .. }), "{text}");
        assert!(text.contains("is i64, expected u32"), "{text}");
    }
}

#[test]
fn a_list_of_another_type() {
    let (_dir, path) = scratch();
    let run = replace_part(&path, "routing", |frame| {
        let experts = frame.column("experts").unwrap();
        let experts = experts.cast(&DataType::List(Box::new(DataType::UInt32))).unwrap();
        with_column(frame, experts)
    });
    let text = run.read_routing().unwrap_err().to_string();
    assert!(text.contains("`experts` is list[u32], expected list[u16]"), "{text}");
}

#[test]
fn values_that_cannot_be() {
    let (_dir, path) = scratch();
    let run = with_tokens(&path, |frame| {
        with_column(frame, Series::new("phase".into(), ["prefill", "decode", "warmup", "decode"]))
    });
    let text = run.read_tokens().unwrap_err().to_string();
    assert!(text.contains("`phase`") && text.contains("\"warmup\" is not a phase"), "{text}");

    let (_dir, path) = scratch();
    let run = with_tokens(&path, |frame| {
        with_column(frame, Series::new("step".into(), [Some(0_u32), None, Some(1), None]))
    });
    let text = run.read_tokens().unwrap_err().to_string();
    assert!(text.contains("`step`: 2 null values, expected none"), "{text}");

    let (_dir, path) = scratch();
    let run = replace_part(&path, "routing", |frame| {
        let lists: Vec<Series> = (0..8)
            .map(|row| Series::new("".into(), vec![0.5_f32; if row == 5 { 3 } else { 2 }]))
            .collect();
        with_column(frame, Series::new("weights".into(), lists))
    });
    let text = run.read_routing().unwrap_err().to_string();
    assert!(text.contains("`weights`") && text.contains("row 5"), "{text}");
    assert!(text.contains("3 entries, expected 2"), "{text}");
}

/// Columns of another tool beside ours do no harm, in one part or in all.
#[test]
fn additional_columns_are_left_alone() {
    let (_dir, path) = scratch();
    let run = with_tokens(&path, |frame| {
        with_column(frame, Series::new("note".into(), ["a", "b", "c", "d"]))
    });
    assert_eq!(run.read_tokens().unwrap().rows(), 4);
    let frame = run.tokens().unwrap().collect().unwrap();
    assert_eq!(frame.width(), 8);
}

#[test]
fn columns_in_another_order() {
    let (_dir, path) = scratch();
    let run = with_tokens(&path, |frame| {
        let mut columns = frame.into_columns();
        columns.reverse();
        DataFrame::new_infer_height(columns).unwrap()
    });
    assert_eq!(run.read_tokens().unwrap().token_id, [100, 101, 102, 103]);
    let frame = run.tokens().unwrap().collect().unwrap();
    assert_eq!(frame.get_column_names()[0], "sequence");
}

fn tokens_part(path: &Path) -> (PathBuf, Vec<u8>) {
    let part = path.join("tokens/part-00000.parquet");
    let bytes = fs::read(&part).unwrap();
    (part, bytes)
}

#[test]
fn a_truncated_part_at_any_length() {
    let (_dir, path) = scratch();
    small_run(&path);
    let (part, bytes) = tokens_part(&path);
    let run = Run::open(&path).unwrap();
    for length in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
        fs::write(&part, &bytes[..length]).unwrap();
        for error in [run.read_tokens().unwrap_err(), run.tokens().err().unwrap()] {
            assert!(matches!(error, TraceError::UnreadablePart { .. }), "{length}: {error}");
            assert!(error.to_string().contains("tokens/part-00000.parquet"), "{error}");
        }
    }
    fs::write(&part, "not parquet at all").unwrap();
    assert!(matches!(run.read_tokens().unwrap_err(), TraceError::UnreadablePart { .. }));
}

/// Flipped bits anywhere give an error that names the part or (in a value) other data: never a panic, and
/// never a table whose columns differ in length.
#[test]
fn damage_in_the_middle_never_panics() {
    let (_dir, path) = scratch();
    small_run(&path);
    let run = Run::open(&path).unwrap();
    for folder in ["tokens", "routing"] {
        let part = path.join(folder).join("part-00000.parquet");
        let bytes = fs::read(&part).unwrap();
        let mut errors = 0;
        for at in (0..bytes.len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            fs::write(&part, &damaged).unwrap();
            let read = match folder {
                "tokens" => run.read_tokens().map(|table| {
                    assert_eq!(table.text.len(), table.rows());
                    assert_eq!(table.logprob.len(), table.rows());
                }),
                _ => run.read_routing().map(|table| {
                    let lists = (0..table.rows()).map(|row| table.experts_of(row).len());
                    assert_eq!(lists.sum::<usize>(), table.experts.len());
                    if let Some(weights) = &table.weights {
                        assert_eq!(weights.len(), table.experts.len());
                    }
                    if let Some(entropy) = &table.entropy {
                        assert_eq!(entropy.len(), table.rows());
                    }
                }),
            };
            if let Err(error) = read {
                errors += 1;
                assert!(error.to_string().contains("part-00000.parquet"), "{error}");
            }
        }
        assert!(errors > 0);
        fs::write(&part, &bytes).unwrap();
    }
}
