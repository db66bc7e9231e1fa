//! `moescope history`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use moescope_analysis::{
    gate::Evidence,
    history::{Trend, entry, trends},
    stats::ChangeOptions,
};
use moescope_report::{draw_trends, sanitize};
use moescope_trace::{BenchResult, Run, fingerprint::DIRTY, history};
use serde_json::json;

use crate::{args::Format, ui};

/// Measurements over time: keep them, find where they change, draw them.
#[derive(Args)]
pub(crate) struct History {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Add bench results or runs.
    Add {
        /// Files of bench results, or run directories.
        #[arg(required = true, value_name = "RESULT")]
        results: Vec<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Print every trend: how many values, the newest, where it changed and by how much.
    Show {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        choice: Choice,
        /// How the table is printed.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Draw a figure per metric, trend-METRIC.svg and .png: a panel for each row, changes and their commits marked.
    Plot {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        choice: Choice,
        /// Directory of the figures.
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
    },
}

#[derive(Args)]
struct Place {
    /// Directory of the history.
    #[arg(long, default_value = "reports/history", value_name = "DIR")]
    history: PathBuf,
}

#[derive(Args)]
struct Choice {
    /// Only this metric; may be given several times.
    #[arg(long = "metric", value_name = "NAME")]
    metrics: Vec<String>,
    /// Largest p of a change (E-divisive, permutation test).
    #[arg(long, default_value_t = ChangeOptions::default().significance, value_parser = level)]
    significance: f64,
}

fn level(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x > 0.0 && x <= 0.5 => Ok(x),
        _ => Err("expected a level above 0 and at most 0.5".into()),
    }
}

impl History {
    pub(crate) fn execute(self) -> anyhow::Result<()> {
        match self.action {
            Action::Add { results, place } => {
                for path in &results {
                    add(path, &place.history)?;
                }
                Ok(())
            }
            Action::Show { place, choice, format } => show(&choice.of(&place.history)?, format),
            Action::Plot { place, choice, output } => {
                let trends = choice.of(&place.history)?;
                let paths = draw_trends(&trends, &output)?;
                let line = |path: &PathBuf| format!("{}\n", sanitize(&path.display().to_string()));
                ui::print(&paths.iter().map(line).collect::<String>())
            }
        }
    }
}

fn add(path: &Path, directory: &Path) -> anyhow::Result<()> {
    let name = path.display().to_string();
    let mut entries = Vec::new();
    if path.is_dir() {
        let run = Run::open(path)?;
        let evidence = Evidence::of_run(&name, &run)?;
        entries.push(entry(&evidence, &run.manifest().run_id, &run.manifest().created_at));
    } else {
        // A file that was appended to holds several.
        for result in BenchResult::read(path)? {
            let evidence = Evidence::of_bench(&name, std::slice::from_ref(&result))?;
            entries.push(entry(&evidence, &result.id, &result.created_at));
        }
    }
    for entry in &entries {
        if let Some(commit) = entry.commit.as_ref().filter(|commit| commit.ends_with(DIRTY)) {
            ui::note(format!(
                "{name}: built from a tree with changes that its commit does not have ({commit}): nobody can measure \
                 it again"
            ));
        }
        let file = history::add(directory, entry).with_context(|| format!("cannot add {name}"))?;
        let rows = entry.values.len();
        ui::print(&format!("{} ({rows} values)\n", sanitize(&file.display().to_string())))?;
    }
    Ok(())
}

impl Choice {
    fn of(&self, directory: &Path) -> anyhow::Result<Vec<Trend>> {
        let entries = history::read(directory)?;
        if entries.is_empty() {
            bail!("{}: no measurements; add some with `moescope history add`", directory.display());
        }
        let options = ChangeOptions { significance: self.significance, ..ChangeOptions::default() };
        let mut trends = trends(&entries, &options);
        if let Some(unknown) = self.metrics.iter().find(|n| trends.iter().all(|t| t.metric != **n))
        {
            let mut known: Vec<&str> = trends.iter().map(|trend| trend.metric.as_str()).collect();
            known.sort_unstable();
            known.dedup();
            bail!("--metric {unknown}: not in the history; it has {}", known.join(", "));
        }
        trends.retain(|t| self.metrics.is_empty() || self.metrics.contains(&t.metric));
        Ok(trends)
    }
}

const HEADER: [&str; 7] = ["row", "metric", "unit", "values", "newest", "changes", "last change"];

fn show(trends: &[Trend], format: Format) -> anyhow::Result<()> {
    ui::print(&match format {
        Format::Text => {
            let mut text = String::new();
            let mut conditions = "";
            let mut start = 0;
            while start < trends.len() {
                let same =
                    trends[start..].iter().take_while(|t| t.conditions == trends[start].conditions);
                let end = start + same.count();
                if conditions != trends[start].conditions {
                    conditions = &trends[start].conditions;
                    text.push_str(&format!("{}\n", sanitize(conditions)));
                }
                let rows: Vec<Vec<String>> = trends[start..end]
                    .iter()
                    .map(|trend| cells(trend).map(|cell| sanitize(&cell).into_owned()).into())
                    .collect();
                text.push_str(&ui::table(&HEADER, &rows));
                start = end;
            }
            text
        }
        Format::Csv => {
            let header: Vec<&str> = HEADER.into_iter().chain(["conditions"]).collect();
            let row = |trend: &Trend| {
                cells(trend).into_iter().chain([trend.conditions.clone()]).collect::<Vec<_>>()
            };
            ui::csv(&header, trends.iter().map(row))
        }
        Format::Json => {
            let trends: Vec<_> = trends.iter().map(object).collect();
            serde_json::to_string_pretty(&trends)? + "\n"
        }
    })
}

fn cells(trend: &Trend) -> [String; 7] {
    let newest = trend.points.last().map(|point| point.value);
    let last = trend.changes.last().map(|change| {
        let point = &trend.points[change.index];
        let commit = point.commit.as_deref().unwrap_or("unknown commit");
        format!("{} {commit} x{:.3}", point.measured_at, trend.ratio(change))
    });
    [
        trend.row.clone(),
        trend.metric.clone(),
        trend.unit.clone(),
        trend.points.len().to_string(),
        newest.map_or_else(String::new, number),
        trend.changes.len().to_string(),
        last.unwrap_or_default(),
    ]
}

/// Five digits, and all of those before the point.
fn number(value: f64) -> String {
    let before = if value == 0.0 { 4.0 } else { value.abs().log10().floor() };
    let after = (4.0 - before).clamp(0.0, 12.0) as usize;
    format!("{value:.after$}")
}

fn object(trend: &Trend) -> serde_json::Value {
    let points = trend.points.iter().map(|point| {
        json!({
            "measured_at": point.measured_at,
            "commit": point.commit,
            "value": point.value,
            "low": point.quartiles.map(|(low, _)| low),
            "high": point.quartiles.map(|(_, high)| high),
        })
    });
    let changes = trend.changes.iter().map(|change| {
        let point = &trend.points[change.index];
        json!({
            "index": change.index,
            "measured_at": point.measured_at,
            "commit": point.commit,
            "ratio": trend.ratio(change),
            "p": change.p,
        })
    });
    json!({
        "conditions": trend.conditions,
        "row": trend.row,
        "metric": trend.metric,
        "unit": trend.unit,
        "points": points.collect::<Vec<_>>(),
        "changes": changes.collect::<Vec<_>>(),
    })
}
