//! The names of the columns that other programs read.

use moescope_analysis::{
    ALL_PAIRS, COMPARISON_COLUMNS, COMPARISON_METRICS, Index, METRICS, MetricRow, TABLE_COLUMNS,
    compare, write_comparison_parquet,
};
use polars::prelude::{ParquetReader, SerReader};

use crate::support::{FAST, SMALL, uniform};

#[test]
fn names_that_programs_rely_on() {
    let run = ["run"];
    let of_row = [
        "metric",
        "layer",
        "index",
        "index_kind",
        "index_first",
        "index_second",
        "domain",
        "phase",
        "value",
        "low",
        "high",
        "chance",
        "unit",
    ];
    assert_eq!(TABLE_COLUMNS.to_vec(), [&run[..], &of_row].concat());
    assert_eq!(COMPARISON_COLUMNS.to_vec(), [&["base", "new"][..], &of_row].concat());
    let kinds = [
        Index::Expert(1),
        Index::Rank(1),
        Index::Percentile(1),
        Index::Pair(1, 2),
        Index::Lag(1),
        Index::Size(1),
    ];
    let words = kinds.map(|index| (index.kind(), index.words()));
    let expected = [
        ("expert", "expert 1"),
        ("rank", "rank 1"),
        ("percentile", "p1"),
        ("pair", "1, 2"),
        ("lag", "lag 1"),
        ("size", "size 1"),
    ];
    assert_eq!(words, expected.map(|(kind, words)| (kind, words.to_owned())));
}

#[test]
fn names_of_metrics_are_unique() {
    let mut names: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
    names.extend(COMPARISON_METRICS.iter().map(|metric| metric.name));
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
    // What a ratio is about is a metric of single runs, and so is what --all-pairs replaces.
    let known = |name: &str| METRICS.iter().any(|metric| metric.name == name);
    assert!(COMPARISON_METRICS.iter().filter_map(|metric| metric.of_each).all(known));
    assert!(ALL_PAIRS.iter().all(|metric| known(metric.name)));
}

#[test]
fn a_comparison_as_parquet() {
    let (a, b) = (uniform(SMALL, 3), uniform(SMALL, 4));
    let comparison = compare(&a, &b, &FAST);
    let rows = comparison.table();
    let mut bytes = Vec::new();
    write_comparison_parquet(&rows, &mut bytes).unwrap();
    let frame = ParquetReader::new(std::io::Cursor::new(bytes)).finish().unwrap();
    assert_eq!(frame.get_column_names(), COMPARISON_COLUMNS);
    assert_eq!(frame.height(), rows.len());
    let numbers = |name: &str| -> Vec<Option<f64>> {
        frame.column(name).unwrap().f64().unwrap().iter().collect()
    };
    let each = |of: fn(&MetricRow) -> Option<f64>| -> Vec<Option<f64>> {
        rows.iter().map(|(_, row)| of(row)).collect()
    };
    assert_eq!(numbers("value"), each(|row| Some(row.value)));
    assert_eq!(numbers("low"), each(|row| row.interval.map(|interval| interval.0)));
    assert_eq!(numbers("chance"), each(|row| row.chance));
    let experts: Vec<Option<u32>> =
        frame.column("index_first").unwrap().u32().unwrap().iter().collect();
    assert_eq!(experts.iter().flatten().count(), 2 * 16, "utilisation_difference, by expert");
    let domains = frame.column("domain").unwrap().str().unwrap().clone();
    assert_eq!(domains.iter().flatten().filter(|domain| *domain == "rust").count(), 3 * 3);
}
