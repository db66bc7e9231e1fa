//! `moescope compare`.

mod text;

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use moescope_analysis::{
    COMPARISON_COLUMNS, COMPARISON_METRICS, Comparison, ComparisonRow, Options, Refusal, RunData,
    TokenWise, compare_across, distinct_names, write_comparison_parquet,
};
use moescope_report::{markdown_escape, sanitize};
use moescope_trace::Run;
use serde_json::{Value, json};

use super::by::By;
use super::{definitions, long};
use crate::ui;

/// What differs between two runs: routing, output, speed, memory.
#[derive(Args)]
pub(crate) struct Compare {
    /// Run directory to compare with.
    #[arg(required_unless_present = "list")]
    base: Option<PathBuf>,
    /// Run directory to compare: another checkpoint, dtype, device or version.
    #[arg(required_unless_present = "list")]
    new: Option<PathBuf>,
    /// Compare speed even if devices, drivers or hosts differ.
    #[arg(long)]
    across_devices: bool,
    /// Which rows: over all domains and phases, of single domains, of single phases, or all of these.
    /// [default: none for text and md, all for json, csv and parquet]
    #[arg(long, value_enum)]
    by: Option<By>,
    /// How the comparison is printed; json, csv and parquet hold every row.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// File to write; - is stdout.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// List the metrics of two runs with their definitions, and compare nothing.
    #[arg(long, conflicts_with_all = ["by", "output"])]
    list: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns.
    Text,
    /// Markdown, for an issue or a pull request.
    Md,
    /// One JSON document.
    Json,
    /// Comma-separated values.
    Csv,
    /// A Parquet file.
    Parquet,
}

impl Compare {
    pub(crate) fn execute(self) -> anyhow::Result<()> {
        let (Some(base), Some(new)) = (&self.base, &self.new) else { return self.list() };
        if self.list {
            return self.list();
        }
        if self.format == Format::Parquet {
            ui::refuse_binary(&self.output)?;
        }
        let runs = [Run::open(base)?, Run::open(new)?];
        let [base, new] = [RunData::load(&runs[0])?, RunData::load(&runs[1])?];
        let mut comparison = compare_across(&base, &new, &Options::default(), self.across_devices);
        let names = distinct_names(&[&base.manifest, &new.manifest]);
        [comparison.base_name, comparison.other_name] = [0, 1].map(|at| {
            let labels = [&base, &new][at].manifest.labels(runs[at].is_partial());
            format!("{}{}", names[at], ui::bracketed(&labels))
        });
        let by = self.by.unwrap_or(match self.format {
            Format::Text | Format::Md => By::None,
            Format::Json | Format::Csv | Format::Parquet => By::All,
        });
        let all = comparison.table();
        let rows = by.of(&all, |(_, row)| row);
        let bytes = match self.format {
            Format::Text => {
                let escape = |name: &str| sanitize(name).into_owned();
                text::text(&comparison, &rows, escape, ui::table).into_bytes()
            }
            Format::Md => {
                text::text(&comparison, &rows, markdown_escape, text::markdown).into_bytes()
            }
            Format::Json => {
                (serde_json::to_string_pretty(&document(&comparison, &rows))? + "\n").into_bytes()
            }
            Format::Csv => long::csv(&COMPARISON_COLUMNS, rows.iter().map(values)).into_bytes(),
            Format::Parquet => {
                let mut bytes = Vec::new();
                write_comparison_parquet(&rows, &mut bytes).context("--format parquet")?;
                bytes
            }
        };
        ui::deliver(&bytes, &self.output)?;
        // Tables have no place for what is not in them.
        if matches!(self.format, Format::Csv | Format::Parquet) {
            if let TokenWise::Refused(refusal) = &comparison.token_wise {
                ui::note(format!("not compared token by token: {refusal}"));
            }
            for (part, refusal) in unsaid(&comparison) {
                ui::note(format!("not compared: {part}: {refusal}{}", hint(refusal)));
            }
        }
        if let Some(note) = by.note(comparison.rows.iter(), rows.iter().map(|(_, row)| *row)) {
            ui::note(note);
        }
        Ok(())
    }

    fn list(&self) -> anyhow::Result<()> {
        let definitions = COMPARISON_METRICS.iter().map(Into::into);
        ui::print(&match self.format {
            Format::Text => definitions::text(definitions),
            Format::Json => definitions::json(definitions)?,
            _ => bail!("--list: expected --format text or json"),
        })
    }
}

/// A row as [`COMPARISON_COLUMNS`].
fn values((names, row): &ComparisonRow<'_>) -> Vec<Value> {
    long::values(&names.map(|name| json!(name)), row, row.index.map(|index| index.words()))
}

/// Parts that were not compared, without those whose reason was said of the tokens already.
fn unsaid(comparison: &Comparison) -> Vec<(&'static str, &Refusal)> {
    let said = match &comparison.token_wise {
        TokenWise::Refused(refusal) => Some(refusal),
        TokenWise::Compared { .. } => None,
    };
    let missing = comparison.missing.iter().filter(|(_, why)| Some(why) != said);
    missing.map(|(part, refusal)| (*part, refusal)).collect()
}

/// What makes a refused part be compared after all.
fn hint(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Machines(_) => " (--across-devices compares them)",
        _ => "",
    }
}

fn document(comparison: &Comparison, rows: &[ComparisonRow<'_>]) -> Value {
    let token_wise = match &comparison.token_wise {
        TokenWise::Compared { tokens, left_out } => {
            json!({ "compared": true, "tokens": tokens, "left_out": left_out })
        }
        TokenWise::Refused(refusal) => json!({ "compared": false, "why": refusal.to_string() }),
    };
    let missing: Vec<Value> = comparison
        .missing
        .iter()
        .map(|(part, refusal)| json!({ "part": part, "why": refusal.to_string() }))
        .collect();
    let rows: Vec<Value> =
        rows.iter().map(|row| long::object(&COMPARISON_COLUMNS, values(row))).collect();
    json!({
        "base": comparison.base_name,
        "new": comparison.other_name,
        "token_wise": token_wise,
        "missing": missing,
        "rows": rows,
    })
}
