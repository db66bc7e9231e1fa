//! Long tables as Parquet files.

use std::io::Write;

use polars::prelude::*;

use crate::analysis::Analysis;
use crate::compare::Comparison;
use crate::row::{Index, MetricRow};

/// Columns of the long table, in order. `index` is the last coordinate in words; the three after it
/// hold it as a kind and one or two numbers.
pub const TABLE_COLUMNS: [&str; 14] = [
    "run",
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

/// Writes rows, each with its analysis, as one Parquet file.
///
/// # Errors
///
/// Where the file cannot be written.
pub fn write_parquet(rows: &[(&Analysis, &MetricRow)], to: impl Write) -> std::io::Result<()> {
    let mut frame = frame(rows).map_err(std::io::Error::other)?;
    ParquetWriter::new(to).finish(&mut frame).map_err(std::io::Error::other)?;
    Ok(())
}

/// Columns of the long table of a comparison, in order: those of [`TABLE_COLUMNS`] with the names of both runs
/// instead of that of one. A row about one of the runs alone ([`Comparison::sides`]) leaves the other empty.
pub const COMPARISON_COLUMNS: [&str; 15] = [
    "base",
    "new",
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

/// A row of a comparison with the names of the base and of the other run, as far as it is about them.
pub type ComparisonRow<'a> = ([Option<&'a str>; 2], &'a MetricRow);

/// Writes rows of a comparison as one Parquet file.
///
/// # Errors
///
/// Where the file cannot be written.
pub fn write_comparison_parquet(rows: &[ComparisonRow<'_>], to: impl Write) -> std::io::Result<()> {
    let mut frame = comparison_frame(rows).map_err(std::io::Error::other)?;
    ParquetWriter::new(to).finish(&mut frame).map_err(std::io::Error::other)?;
    Ok(())
}

impl Comparison {
    /// All rows of the long table: the metrics, then what each run alone has.
    pub fn table(&self) -> Vec<ComparisonRow<'_>> {
        let (base, new) = (Some(self.base_name.as_str()), Some(self.other_name.as_str()));
        let both = self.rows.iter().map(|row| ([base, new], row));
        let of_base = self.sides[0].iter().map(|row| ([base, None], row));
        let of_new = self.sides[1].iter().map(|row| ([None, new], row));
        both.chain(of_base).chain(of_new).collect()
    }
}

fn comparison_frame(rows: &[ComparisonRow<'_>]) -> PolarsResult<DataFrame> {
    let name = |column: &str, at: usize| {
        text(column, rows.iter().map(move |(names, _)| names[at].map(str::to_owned)))
    };
    let words = rows.iter().map(|(_, row)| Some(row.index?.words()));
    let mut columns = vec![name("base", 0), name("new", 1)];
    columns.extend(values(&rows.iter().map(|(_, row)| *row).collect::<Vec<_>>(), words));
    DataFrame::new(rows.len(), columns)
}

fn frame(rows: &[(&Analysis, &MetricRow)]) -> PolarsResult<DataFrame> {
    let names = rows.iter().map(|(analysis, _)| Some(analysis.labelled_name()));
    let words = rows.iter().map(|(analysis, row)| analysis.index_words(row));
    let mut columns = vec![text("run", names)];
    columns.extend(values(&rows.iter().map(|(_, row)| *row).collect::<Vec<_>>(), words));
    DataFrame::new(rows.len(), columns)
}

/// The columns from `metric` on, `words` being the index in words.
fn values(rows: &[&MetricRow], words: impl Iterator<Item = Option<String>>) -> Vec<Column> {
    let each = || rows.iter();
    vec![
        text("metric", each().map(|row| Some(row.metric.to_owned()))),
        whole("layer", each().map(|row| row.layer.map(u32::from))),
        text("index", words),
        text("index_kind", each().map(|row| Some(row.index?.kind().to_owned()))),
        whole("index_first", each().map(|row| Some(row.index?.numbers().0))),
        whole("index_second", each().map(|row| row.index?.numbers().1)),
        text("domain", each().map(|row| row.domain.clone())),
        text("phase", each().map(|row| row.phase.map(str::to_owned))),
        number("value", each().map(|row| Some(row.value))),
        number("low", each().map(|row| row.interval.map(|interval| interval.0))),
        number("high", each().map(|row| row.interval.map(|interval| interval.1))),
        number("chance", each().map(|row| row.chance)),
        text("unit", each().map(|row| Some(row.unit.to_owned()))),
    ]
}

fn text(name: &str, values: impl Iterator<Item = Option<String>>) -> Column {
    StringChunked::from_iter_options(name.into(), values).into_column()
}

fn number(name: &str, values: impl Iterator<Item = Option<f64>>) -> Column {
    Float64Chunked::from_iter_options(name.into(), values).into_column()
}

fn whole(name: &str, values: impl Iterator<Item = Option<u32>>) -> Column {
    UInt32Chunked::from_iter_options(name.into(), values).into_column()
}

impl Index {
    /// What it counts: `expert`, `rank`, `percentile`, `pair`, `lag`, `size`.
    pub fn kind(self) -> &'static str {
        match self {
            Index::Expert(_) => "expert",
            Index::Rank(_) => "rank",
            Index::Percentile(_) => "percentile",
            Index::Pair(..) => "pair",
            Index::Lag(_) => "lag",
            Index::Size(_) => "size",
        }
    }

    /// Its number, and the second one of a pair.
    pub fn numbers(self) -> (u32, Option<u32>) {
        match self {
            Index::Expert(n) | Index::Rank(n) => (n.into(), None),
            Index::Percentile(n) => (n.into(), None),
            Index::Pair(i, j) => (i.into(), Some(j.into())),
            Index::Lag(n) | Index::Size(n) => (n, None),
        }
    }

    /// In words: `expert 5`, `lag 8`, `3, 7`.
    pub fn words(self) -> String {
        match self {
            Index::Expert(e) => format!("expert {e}"),
            Index::Rank(r) => format!("rank {r}"),
            Index::Percentile(p) => format!("p{p}"),
            Index::Pair(i, j) => format!("{i}, {j}"),
            Index::Lag(n) => format!("lag {n}"),
            Index::Size(n) => format!("size {n}"),
        }
    }
}

impl Analysis {
    /// The last coordinate of a row in words: `expert 5`, `lag 8`, `rust / english`.
    pub fn index_words(&self, row: &MetricRow) -> Option<String> {
        let domain = |i: u16| self.domains.get(usize::from(i)).map_or("?", String::as_str);
        Some(match row.index? {
            Index::Pair(i, j) if row.metric == "domain_divergence" => {
                format!("{} / {}", domain(i), domain(j))
            }
            index => index.words(),
        })
    }
}
