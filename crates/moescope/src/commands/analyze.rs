//! `moescope analyze`.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, ValueEnum};
use moescope_analysis::{Analysis, Index, METRICS, MetricRow, Options, analyze_all};
use moescope_report::sanitize;
use moescope_trace::Run;
use serde_json::{Value, json};

use crate::{args::Format, ui};

/// Every metric of one or more runs, as one long table.
#[derive(Args)]
pub(crate) struct Analyze {
    /// Run directories.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Only this metric; may be given several times.
    #[arg(long = "metric", value_name = "NAME")]
    metrics: Vec<String>,
    /// Only the rows of single domains, or of single phases; by default those over all of both.
    #[arg(long, value_enum)]
    by: Option<By>,
    /// How the table is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// What a metric is split by.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Domain,
    Phase,
}

const HEADER: [&str; 11] = [
    "run", "metric", "layer", "index", "domain", "phase", "value", "low", "high", "chance", "unit",
];

impl Analyze {
    pub(crate) fn execute(self) -> anyhow::Result<()> {
        if let Some(unknown) = self.metrics.iter().find(|n| METRICS.iter().all(|m| m.name != **n)) {
            let known: Vec<&str> = METRICS.iter().map(|m| m.name).collect();
            bail!("--metric {unknown}: unknown; expected one of {}", known.join(", "));
        }
        let runs = self.runs.iter().map(Run::open).collect::<Result<Vec<_>, _>>()?;
        let (analyses, _) = analyze_all(&runs, &Options::default())?;
        let rows = analyses.iter().flat_map(|analysis| {
            let wanted = analysis.rows.iter().filter(|row| self.wants(row));
            wanted.map(move |row| (analysis, row))
        });
        ui::print(&match self.format {
            Format::Json => {
                let rows: Vec<Value> = rows.map(|(analysis, row)| object(analysis, row)).collect();
                serde_json::to_string_pretty(&rows)? + "\n"
            }
            // Plain numbers and raw names: a file for other programs.
            Format::Csv => {
                let full = |x: f64| x.to_string();
                ui::csv(
                    &HEADER,
                    &rows.map(|(a, r)| cells(a, r, str::to_owned, full)).collect::<Vec<_>>(),
                )
            }
            Format::Text => {
                let shown = |name: &str| sanitize(name).into_owned();
                ui::table(
                    &HEADER,
                    &rows.map(|(a, r)| cells(a, r, shown, short)).collect::<Vec<_>>(),
                )
            }
        })?;
        for analysis in &analyses {
            for absent in analysis.absent.iter().filter(|a| self.names(a.metric)) {
                ui::note(format!("{}: {}: {}", analysis.name, absent.metric, absent.reason));
            }
        }
        Ok(())
    }

    fn names(&self, metric: &str) -> bool {
        self.metrics.is_empty() || self.metrics.iter().any(|name| name == metric)
    }

    fn wants(&self, row: &MetricRow) -> bool {
        let split = match self.by {
            Some(By::Domain) => row.domain.is_some(),
            Some(By::Phase) => row.phase.is_some() && row.domain.is_none(),
            // Some metrics exist by domain or by phase only.
            None => (row.domain.is_none() || row.metric.starts_with("domain_")) && whole(row),
        };
        split && self.names(row.metric)
    }
}

/// Rows over both phases, and those of metrics that have no such row.
fn whole(row: &MetricRow) -> bool {
    row.phase.is_none() || ["throughput", "step_latency", "hit_rate_lru_warm"].contains(&row.metric)
}

fn cells(
    analysis: &Analysis,
    row: &MetricRow,
    name: impl Fn(&str) -> String,
    number: fn(f64) -> String,
) -> Vec<String> {
    let optional = |x: Option<f64>| x.map_or_else(String::new, number);
    vec![
        name(&analysis.labelled_name()),
        row.metric.to_owned(),
        row.layer.map_or_else(String::new, |layer| layer.to_string()),
        row.index.map_or_else(String::new, |index| name(&describe(analysis, row, index))),
        row.domain.as_deref().map_or_else(String::new, &name),
        row.phase.unwrap_or_default().to_owned(),
        number(row.value),
        optional(row.interval.map(|(low, _)| low)),
        optional(row.interval.map(|(_, high)| high)),
        optional(row.chance),
        row.unit.to_owned(),
    ]
}

/// The last coordinate in words.
fn describe(analysis: &Analysis, row: &MetricRow, index: Index) -> String {
    let domain = |i: u16| analysis.domains.get(usize::from(i)).map_or("?", String::as_str);
    match index {
        Index::Expert(e) => format!("expert {e}"),
        Index::Rank(r) => format!("rank {r}"),
        Index::Percentile(p) => format!("p{p}"),
        Index::Pair(i, j) if row.metric == "domain_divergence" => {
            format!("{} / {}", domain(i), domain(j))
        }
        Index::Pair(i, j) => format!("{i}, {j}"),
        Index::Lag(n) => format!("lag {n}"),
        Index::Size(n) => format!("size {n}"),
    }
}

fn object(analysis: &Analysis, row: &MetricRow) -> Value {
    json!({
        "run": analysis.labelled_name(),
        "metric": row.metric,
        "layer": row.layer,
        "index": row.index.map(|index| describe(analysis, row, index)),
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
