//! `moescope analyze`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use moescope_analysis::{
    Analysis, METRICS, Metric, MetricRow, Options, TABLE_COLUMNS, analyze_chosen, summarise,
    write_parquet,
};
use moescope_report::sanitize;
use moescope_trace::Run;
use serde_json::{Value, json};

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
    /// Only the rows of single domains, or of single phases; by default those over all of both.
    #[arg(long, value_enum)]
    by: Option<By>,
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

/// What a metric is split by.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Domain,
    Phase,
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
            return ui::print(&match self.format {
                Format::Text => list(&metrics),
                Format::Json => list_json(&metrics)?,
                _ => bail!("--list: expected --format text or json"),
            });
        }
        if self.format == Format::Parquet {
            ui::refuse_binary(&self.output)?;
        }
        let runs = self.runs.iter().map(Run::open).collect::<Result<Vec<_>, _>>()?;
        let analyses = analyze_chosen(&runs, &Options::default(), &metrics)?;
        let rows: Rows<'_> = analyses
            .iter()
            .flat_map(|analysis| self.wanted(analysis).into_iter().map(move |row| (analysis, row)))
            .collect();
        let bytes = match self.format {
            Format::Text if self.metrics.is_empty() => {
                // The names carry the labels.
                let named = analyses.len() > 1 || analyses.iter().any(|a| !a.labels().is_empty());
                summary(&rows, named).into_bytes()
            }
            Format::Text => long_text(&rows).into_bytes(),
            Format::Csv => long_csv(&rows).into_bytes(),
            Format::Json => long_json(&rows)?.into_bytes(),
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
        Ok(())
    }

    /// The metrics that were named, in the order of the registry; all where none was.
    fn chosen(&self) -> anyhow::Result<Vec<&'static Metric>> {
        if let Some(unknown) = self.metrics.iter().find(|n| METRICS.iter().all(|m| m.name != **n)) {
            let known: Vec<&str> = METRICS.iter().map(|m| m.name).collect();
            bail!("--metric {unknown}: unknown; expected one of {}", known.join(", "));
        }
        let named = |metric: &&Metric| {
            self.metrics.is_empty() || self.metrics.iter().any(|name| name == metric.name)
        };
        Ok(METRICS.iter().filter(named).collect())
    }

    /// The rows that --by asks for: over all of both, unless a metric has no such rows.
    fn wanted<'a>(&self, analysis: &'a Analysis) -> Vec<&'a MetricRow> {
        let of_metric = |rows: &[&'a MetricRow]| -> Vec<&'a MetricRow> {
            let mut rows = rows.to_vec();
            match self.by {
                Some(By::Domain) => rows.retain(|row| row.domain.is_some()),
                Some(By::Phase) => rows.retain(|row| row.phase.is_some() && row.domain.is_none()),
                None => {
                    if rows.iter().any(|row| row.domain.is_none()) {
                        rows.retain(|row| row.domain.is_none());
                    }
                    if rows.iter().any(|row| row.phase.is_none()) {
                        rows.retain(|row| row.phase.is_none());
                    }
                }
            }
            rows
        };
        let rows: Vec<&MetricRow> = analysis.rows.iter().collect();
        rows.chunk_by(|a, b| a.metric == b.metric).flat_map(of_metric).collect()
    }
}

/// Name, unit, definition, chance level and source of each metric.
fn list(metrics: &[&Metric]) -> String {
    let mut text = String::new();
    for metric in metrics {
        text.push_str(&format!("{} ({}): {}\n", metric.name, metric.unit, metric.title));
        text.push_str(&format!("    {}\n", metric.formula));
        if !metric.chance.is_empty() {
            text.push_str(&format!("    chance: {}\n", metric.chance));
        }
        text.push_str(&format!("    source: {}\n", metric.source));
    }
    text
}

fn list_json(metrics: &[&Metric]) -> anyhow::Result<String> {
    let metrics: Vec<Value> = metrics
        .iter()
        .map(|metric| {
            json!({
                "metric": metric.name,
                "title": metric.title,
                "unit": metric.unit,
                "formula": metric.formula,
                "chance": metric.chance,
                "source": metric.source,
                "needs": metric.needs.iter().map(|need| need.what()).collect::<Vec<_>>(),
            })
        })
        .collect();
    Ok(serde_json::to_string_pretty(&metrics)? + "\n")
}

/// A line per metric and run; per lag, size, percentile or rank where it has those.
fn summary(rows: &Rows<'_>, several: bool) -> String {
    let header =
        ["metric", "at", "run", "mean", "lowest", "where", "highest", "where", "chance", "unit"];
    let mut lines = Vec::new();
    for of_run in rows.chunk_by(|a, b| std::ptr::eq(a.0, b.0)) {
        let Some(&(analysis, _)) = of_run.first() else { continue };
        for line in summarise(of_run.iter().map(|(_, row)| *row)) {
            let at: Vec<String> = [line.index.and(analysis.index_words(line.lowest))]
                .into_iter()
                .flatten()
                .chain(line.phase.map(str::to_owned))
                .collect();
            let alone = line.rows == 1;
            let place = |row: &MetricRow| if alone { String::new() } else { place(analysis, row) };
            let value = |x: f64| if alone { String::new() } else { short(x) };
            lines.push(vec![
                line.metric.to_owned(),
                at.join(" "),
                sanitize(&analysis.labelled_name()).into_owned(),
                short(line.mean),
                value(line.lowest.value),
                place(line.lowest),
                value(line.highest.value),
                place(line.highest),
                line.chance.map_or_else(String::new, short),
                line.unit.to_owned(),
            ]);
        }
    }
    // Runs beside each other: the lines of one metric together, in the order they came.
    let order = |line: &Vec<String>| METRICS.iter().position(|metric| metric.name == line[0]);
    lines.sort_by_key(order);
    if several {
        return ui::table(&header, &lines);
    }
    let without = |cells: Vec<String>| {
        cells.into_iter().enumerate().filter(|(at, _)| *at != 2).map(|(_, cell)| cell).collect()
    };
    let header: Vec<&str> = header.into_iter().filter(|name| *name != "run").collect();
    ui::table(&header, &lines.into_iter().map(without).collect::<Vec<_>>())
}

/// Layer, domain and expert or pair of a row.
fn place(analysis: &Analysis, row: &MetricRow) -> String {
    use moescope_analysis::Index;
    let within = match row.index {
        Some(Index::Expert(_) | Index::Pair(..)) => analysis.index_words(row),
        _ => None,
    };
    let layer = row.layer.map(|layer| format!("layer {layer}"));
    let parts: Vec<String> = layer.into_iter().chain(row.domain.clone()).chain(within).collect();
    sanitize(&parts.join(", ")).into_owned()
}

fn long_text(rows: &Rows<'_>) -> String {
    let shown = |name: &str| sanitize(name).into_owned();
    let columns = |cells: Vec<String>| {
        cells.into_iter().enumerate().filter(|(at, _)| !MACHINE.contains(at)).map(|(_, c)| c)
    };
    let header: Vec<&str> = columns(TABLE_COLUMNS.map(str::to_owned).into())
        .filter_map(|name| TABLE_COLUMNS.into_iter().find(|column| **column == name))
        .collect();
    let lines: Vec<Vec<String>> =
        rows.iter().map(|(a, r)| columns(cells(a, r, shown, short)).collect()).collect();
    ui::table(&header, &lines)
}

/// Columns for programs: the index as a kind and numbers.
const MACHINE: std::ops::Range<usize> = 4..7;

/// Plain numbers and raw names: a file for other programs.
fn long_csv(rows: &Rows<'_>) -> String {
    let full = |x: f64| x.to_string();
    let cells = |(a, r): &(&Analysis, &MetricRow)| cells(a, r, str::to_owned, full);
    ui::csv(&TABLE_COLUMNS, &rows.iter().map(cells).collect::<Vec<_>>())
}

fn long_json(rows: &Rows<'_>) -> anyhow::Result<String> {
    let rows: Vec<Value> = rows.iter().map(|(analysis, row)| object(analysis, row)).collect();
    Ok(serde_json::to_string_pretty(&rows)? + "\n")
}

/// A row as [`TABLE_COLUMNS`].
fn cells(
    analysis: &Analysis,
    row: &MetricRow,
    name: impl Fn(&str) -> String,
    number: fn(f64) -> String,
) -> Vec<String> {
    let optional = |x: Option<f64>| x.map_or_else(String::new, number);
    let whole = |n: Option<u32>| n.map_or_else(String::new, |n| n.to_string());
    let numbers = row.index.map(|index| index.numbers());
    vec![
        name(&analysis.labelled_name()),
        row.metric.to_owned(),
        row.layer.map_or_else(String::new, |layer| layer.to_string()),
        analysis.index_words(row).map_or_else(String::new, |words| name(&words)),
        row.index.map_or_else(String::new, |index| index.kind().to_owned()),
        whole(numbers.map(|numbers| numbers.0)),
        whole(numbers.and_then(|numbers| numbers.1)),
        row.domain.as_deref().map_or_else(String::new, &name),
        row.phase.unwrap_or_default().to_owned(),
        number(row.value),
        optional(row.interval.map(|(low, _)| low)),
        optional(row.interval.map(|(_, high)| high)),
        optional(row.chance),
        row.unit.to_owned(),
    ]
}

fn object(analysis: &Analysis, row: &MetricRow) -> Value {
    let numbers = row.index.map(|index| index.numbers());
    json!({
        "run": analysis.labelled_name(),
        "metric": row.metric,
        "layer": row.layer,
        "index": analysis.index_words(row),
        "index_kind": row.index.map(|index| index.kind()),
        "index_first": numbers.map(|numbers| numbers.0),
        "index_second": numbers.and_then(|numbers| numbers.1),
        "domain": row.domain,
        "phase": row.phase,
        "value": row.value,
        "low": row.interval.map(|(low, _)| low),
        "high": row.interval.map(|(_, high)| high),
        "chance": row.chance,
        "unit": row.unit,
    })
}

/// Four significant digits; large numbers whole.
fn short(x: f64) -> String {
    match x.abs() {
        a if a >= 1e4 => format!("{x:.0}"),
        0.0 => "0".into(),
        a => format!("{x:.*}", (3 - a.log10().floor() as i32).clamp(0, 9) as usize),
    }
}
