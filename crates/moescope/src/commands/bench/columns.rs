//! The columns of a result, in one list: what they are called, what they hold, how they are shown.

use moescope_trace::bench::BenchRow;
use serde_json::Value;

use super::summary::{self, Summary};
use crate::ui;

/// A column of the tables.
pub(super) struct Column {
    /// In CSV and JSON, with its unit.
    pub(super) name: &'static str,
    /// In text and Markdown; empty where it is not shown there.
    pub(super) head: &'static str,
    /// Which of the two tables it is in.
    pub(super) table: Table,
    /// Its value.
    pub(super) value: fn(&BenchRow, &Summary) -> Option<Value>,
    /// As it is shown; `None` leaves it empty.
    pub(super) shown: fn(&BenchRow, &Summary) -> Option<String>,
}

/// The tables of text and Markdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// Times and what follows from them.
    Speed,
    /// What does not depend on time.
    Facts,
}

use Table::{Facts, Speed};

/// All of them. A column that is empty in every row is not shown.
pub(super) const COLUMNS: &[Column] = &[
    Column {
        name: "test",
        head: "test",
        table: Speed,
        value: |row, _| Some(summary::test(&row.configuration).into()),
        shown: |row, _| Some(summary::test(&row.configuration)),
    },
    Column {
        name: "tokens_per_second",
        head: "t/s",
        table: Speed,
        value: |_, s| number(s.rate),
        shown: |_, s| s.rate.map(rate),
    },
    Column {
        name: "tokens_per_second_low",
        head: "95 % interval",
        table: Speed,
        value: |_, s| number(s.interval.map(|(low, _)| low)),
        shown: |_, s| s.interval.map(|(low, high)| format!("{} to {}", rate(low), rate(high))),
    },
    Column {
        name: "tokens_per_second_high",
        head: "",
        table: Speed,
        value: |_, s| number(s.interval.map(|(_, high)| high)),
        shown: |_, _| None,
    },
    Column {
        name: "spread",
        head: "spread",
        table: Speed,
        value: |_, s| number(s.spread),
        shown: |_, s| s.spread.map(percent),
    },
    Column {
        name: "ttft_ms",
        head: "TTFT ms",
        table: Speed,
        value: |_, s| number(s.ttft_ns.map(|ns| ns / 1e6)),
        shown: |_, s| s.ttft_ns.map(ms),
    },
    Column {
        name: "tpot_ms",
        head: "TPOT ms",
        table: Speed,
        value: |_, s| number(s.tpot_ns.map(|ns| ns / 1e6)),
        shown: |_, s| s.tpot_ns.map(ms),
    },
    Column {
        name: "itl_p50_ms",
        head: "ITL p50",
        table: Speed,
        value: |_, s| number(s.itl_ns.map(|itl| itl[0] / 1e6)),
        shown: |_, s| s.itl_ns.map(|itl| ms(itl[0])),
    },
    Column {
        name: "itl_p95_ms",
        head: "p95",
        table: Speed,
        value: |_, s| number(s.itl_ns.map(|itl| itl[1] / 1e6)),
        shown: |_, s| s.itl_ns.map(|itl| ms(itl[1])),
    },
    Column {
        name: "itl_p99_ms",
        head: "p99 ms",
        table: Speed,
        value: |_, s| number(s.itl_ns.map(|itl| itl[2] / 1e6)),
        shown: |_, s| s.itl_ns.map(|itl| ms(itl[2])),
    },
    Column {
        name: "cold_first_token_ms",
        head: "cold ms",
        table: Speed,
        value: |_, s| number(s.cold_ns.map(|ns| ns / 1e6)),
        shown: |_, s| s.cold_ns.map(ms),
    },
    Column {
        name: "sparse_mbu",
        head: "MBU",
        table: Speed,
        value: |_, s| number(s.mbu),
        shown: |_, s| s.mbu.map(percent),
    },
    Column {
        name: "sparse_mfu",
        head: "MFU",
        table: Speed,
        value: |_, s| number(s.mfu),
        shown: |_, s| s.mfu.map(percent),
    },
    Column {
        name: "joules_per_token",
        head: "J/token",
        table: Speed,
        value: |_, s| number(s.joules),
        shown: |_, s| s.joules.map(|j| format!("{j:.3}")),
    },
    Column {
        name: "samples",
        head: "samples",
        table: Speed,
        value: |row, _| Some(row.samples.len().into()),
        shown: |row, _| Some(row.samples.len().to_string()),
    },
    Column {
        name: "warm_ups",
        head: "",
        table: Speed,
        value: |row, _| Some(row.warm_ups.into()),
        shown: |_, _| None,
    },
    Column {
        name: "distinct_experts",
        head: "experts",
        table: Facts,
        value: |row, _| number(row.facts.distinct_experts),
        shown: |row, _| row.facts.distinct_experts.map(|n| format!("{n:.1}")),
    },
    Column {
        name: "distinct_by_layer",
        head: "by layer",
        table: Facts,
        value: |row, _| {
            let layers = row.facts.distinct_by_layer.iter();
            let counts: Vec<Value> = layers.map(|layer| layer.measured.into()).collect();
            (!counts.is_empty()).then(|| counts.into())
        },
        shown: |row, _| layers(row),
    },
    Column {
        name: "distinct_expected",
        head: "if even",
        table: Facts,
        value: |row, _| number(row.facts.distinct_expected),
        shown: |row, _| row.facts.distinct_expected.map(|n| format!("{n:.1}")),
    },
    Column {
        name: "load_variation",
        head: "load CV",
        table: Facts,
        value: |row, _| number(row.facts.load_variation),
        shown: |row, _| row.facts.load_variation.map(|x| format!("{x:.3}")),
    },
    Column {
        name: "bytes_per_token",
        head: "read/token",
        table: Facts,
        value: |row, _| number(row.facts.bytes_per_token),
        shown: |row, _| row.facts.bytes_per_token.map(|n| ui::bytes(n as u64)),
    },
    Column {
        name: "dispatches",
        head: "dispatches",
        table: Facts,
        value: |row, _| number(row.facts.dispatches),
        shown: |row, _| row.facts.dispatches.map(|n| format!("{n:.0}")),
    },
    Column {
        name: "peak_bytes_in_use",
        head: "in use",
        table: Facts,
        value: |row, _| row.facts.peak_bytes_in_use.map(Value::from),
        shown: |row, _| row.facts.peak_bytes_in_use.map(ui::bytes),
    },
    Column {
        name: "peak_bytes_reserved",
        head: "reserved",
        table: Facts,
        value: |row, _| row.facts.peak_bytes_reserved.map(Value::from),
        shown: |row, _| row.facts.peak_bytes_reserved.map(ui::bytes),
    },
    Column {
        name: "peak_rss_bytes",
        head: "RSS",
        table: Facts,
        value: |row, _| row.facts.peak_rss_bytes.map(Value::from),
        shown: |row, _| row.facts.peak_rss_bytes.map(ui::bytes),
    },
    Column {
        name: "tokens_hash",
        head: "tokens",
        table: Facts,
        value: |row, _| row.facts.tokens_hash.clone().map(Value::from),
        shown: |row, _| row.facts.tokens_hash.as_deref().map(short),
    },
    Column {
        name: "routing_hash",
        head: "routing",
        table: Facts,
        value: |row, _| row.facts.routing_hash.clone().map(Value::from),
        shown: |row, _| row.facts.routing_hash.as_deref().map(short),
    },
];

/// Least and most distinct experts of a layer; one number where all are alike.
fn layers(row: &BenchRow) -> Option<String> {
    let counts = || row.facts.distinct_by_layer.iter().map(|layer| layer.measured);
    let [low, high] = [counts().reduce(f64::min)?, counts().reduce(f64::max)?];
    Some(if low == high { format!("{low:.1}") } else { format!("{low:.1} to {high:.1}") })
}

fn number(value: Option<f64>) -> Option<Value> {
    value.filter(|value| value.is_finite()).map(Value::from)
}

fn rate(value: f64) -> String {
    match value {
        v if v < 100.0 => format!("{v:.2}"),
        v if v < 10_000.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

fn ms(ns: f64) -> String {
    match ns / 1e6 {
        v if v < 10.0 => format!("{v:.3}"),
        v if v < 1000.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn short(hash: &str) -> String {
    hash.chars().take(8).collect()
}

/// Columns of a table that have something to show, and their cells, row by row. Facts are named by the first
/// column too.
pub(super) fn cells(
    table: Table,
    rows: &[(&BenchRow, Summary)],
) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let shown: Vec<&Column> = COLUMNS
        .iter()
        .enumerate()
        .filter(|(at, column)| *at == 0 || column.table == table)
        .map(|(_, column)| column)
        .filter(|column| {
            let any = || rows.iter().any(|(row, summary)| (column.shown)(row, summary).is_some());
            !column.head.is_empty() && any()
        })
        .collect();
    let cell = |column: &Column, row: &BenchRow, summary: &Summary| {
        (column.shown)(row, summary).unwrap_or_else(|| "-".into())
    };
    let lines = rows
        .iter()
        .map(|(row, summary)| shown.iter().map(|column| cell(column, row, summary)).collect());
    (shown.iter().map(|column| column.head).collect(), lines.collect())
}
