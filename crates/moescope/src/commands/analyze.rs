//! `moescope analyze`.

mod summary;

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use moescope_analysis::{
    ALL_PAIRS, Analysis, METRICS, Metric, MetricRow, Options, TABLE_COLUMNS, analyze_chosen,
    write_parquet,
};
use moescope_report::sanitize;
use moescope_trace::Run;
use serde_json::{Value, json};

use super::by::By;
use super::{definitions, long};
use crate::ui;

/// Every metric of one or more runs: as text in a line each, or all rows of one long table.
#[derive(Args)]
pub(crate) struct Analyze {
    /// Run directories.
    #[arg(required_unless_present = "list", value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Only this metric, with all its rows; may be given several times.
    #[arg(long = "metric", value_name = "NAME")]
    metrics: Vec<String>,
    /// Which rows: over all domains and phases, of single domains, of single phases, or all of these.
    /// [default: none for text, all for json, csv and parquet]
    #[arg(long, value_enum)]
    by: Option<By>,
    /// For coactivation, coactivation_lift and expert_path every pair of experts, over all tokens, instead of
    /// the strongest ones; only these three metrics are computed unless --metric names others.
    #[arg(long)]
    all_pairs: bool,
    /// How the table is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// File to write; - is stdout.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// List the metrics with their definitions, and analyse nothing.
    #[arg(long, conflicts_with_all = ["by", "output"])]
    list: bool,
}

/// How the table is printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns: a line per metric, or all rows of those named with --metric.
    Text,
    /// One JSON document.
    Json,
    /// Comma-separated values.
    Csv,
    /// A Parquet file.
    Parquet,
}

/// Rows with the analysis they are from.
type Rows<'a> = Vec<(&'a Analysis, &'a MetricRow)>;

impl Analyze {
    pub(crate) fn execute(self) -> anyhow::Result<()> {
        let metrics = self.chosen()?;
        if self.list {
            let definitions = metrics.iter().map(|metric| (*metric).into());
            return ui::print(&match self.format {
                Format::Text => definitions::text(definitions),
                Format::Json => definitions::json(definitions)?,
                _ => bail!("--list: expected --format text or json"),
            });
        }
        if self.format == Format::Parquet {
            ui::refuse_binary(&self.output)?;
        }
        let runs = self.runs.iter().map(Run::open).collect::<Result<Vec<_>, _>>()?;
        let analyses = analyze_chosen(&runs, &Options::default(), &metrics)?;
        let by = self.by.unwrap_or(match self.format {
            Format::Text => By::None,
            Format::Json | Format::Csv | Format::Parquet => By::All,
        });
        let rows: Rows<'_> = analyses
            .iter()
            .flat_map(|analysis| {
                let all: Vec<&MetricRow> = analysis.rows.iter().collect();
                by.of(&all, |row| row).into_iter().map(move |row| (analysis, row))
            })
            .collect();
        let bytes = match self.format {
            Format::Text if self.metrics.is_empty() && !self.all_pairs => {
                summary::text(&analyses, &rows).into_bytes()
            }
            Format::Text => long_text(&rows).into_bytes(),
            Format::Csv => long::csv(&TABLE_COLUMNS, rows.iter().map(values)).into_bytes(),
            Format::Json => {
                let rows: Vec<Value> =
                    rows.iter().map(|row| long::object(&TABLE_COLUMNS, values(row))).collect();
                (serde_json::to_string_pretty(&rows)? + "\n").into_bytes()
            }
            Format::Parquet => {
                let mut bytes = Vec::new();
                write_parquet(&rows, &mut bytes).context("--format parquet")?;
                bytes
            }
        };
        ui::deliver(&bytes, &self.output)?;
        for analysis in &analyses {
            for absent in &analysis.absent {
                ui::note(format!("{}: {}: {}", analysis.name, absent.metric, absent.reason));
            }
        }
        let computed = analyses.iter().flat_map(|analysis| &analysis.rows);
        if let Some(note) = by.note(computed, rows.iter().map(|(_, row)| *row)) {
            ui::note(note);
        }
        Ok(())
    }

    /// The metrics that were named, in the order of the registry; all where none was.
    fn chosen(&self) -> anyhow::Result<Vec<&'static Metric>> {
        let of_pairs = |name: &str| ALL_PAIRS.iter().find(|metric| metric.name == name);
        if let Some(unknown) = self.metrics.iter().find(|n| METRICS.iter().all(|m| m.name != **n)) {
            let known: Vec<&str> = METRICS.iter().map(|m| m.name).collect();
            bail!("--metric {unknown}: unknown; expected one of {}", known.join(", "));
        }
        if self.all_pairs && self.metrics.is_empty() {
            return Ok(ALL_PAIRS.iter().collect());
        }
        if self.all_pairs && self.metrics.iter().all(|name| of_pairs(name).is_none()) {
            let known: Vec<&str> = ALL_PAIRS.iter().map(|m| m.name).collect();
            bail!(
                "--all-pairs: {} has no pairs of experts; expected one of {}",
                self.metrics.join(", "),
                known.join(", ")
            );
        }
        let named = |metric: &&Metric| {
            self.metrics.is_empty() || self.metrics.iter().any(|name| name == metric.name)
        };
        let whole = |metric: &'static Metric| {
            of_pairs(metric.name).filter(|_| self.all_pairs).unwrap_or(metric)
        };
        Ok(METRICS.iter().filter(named).map(whole).collect())
    }
}

/// Columns for programs: the index as a kind and numbers.
const MACHINE: std::ops::Range<usize> = 4..7;

fn long_text(rows: &Rows<'_>) -> String {
    let shown = |at: &usize| !MACHINE.contains(at);
    let header: Vec<&str> = TABLE_COLUMNS
        .iter()
        .enumerate()
        .filter(|(at, _)| shown(at))
        .map(|(_, name)| *name)
        .collect();
    let line = |row: &(&Analysis, &MetricRow)| -> Vec<String> {
        let cells = values(row).into_iter().enumerate().filter(|(at, _)| shown(at));
        cells.map(|(_, value)| sanitize(&long::cell(&value, short)).into_owned()).collect()
    };
    ui::table(&header, &rows.iter().map(line).collect::<Vec<_>>())
}

/// A row as [`TABLE_COLUMNS`].
fn values((analysis, row): &(&Analysis, &MetricRow)) -> Vec<Value> {
    long::values(&[json!(analysis.labelled_name())], row, analysis.index_words(row))
}

/// Four significant digits; large numbers whole.
fn short(x: f64) -> String {
    match x.abs() {
        a if a >= 1e4 => format!("{x:.0}"),
        0.0 => "0".into(),
        a => format!("{x:.*}", (3 - a.log10().floor() as i32).clamp(0, 9) as usize),
    }
}
