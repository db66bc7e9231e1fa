//! `moescope compare`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use moescope_analysis::{
    COMPARISON_COLUMNS, Comparison, Index, MetricRow, Options, Refusal, RunData, TokenWise,
    compare_across, distinct_names, write_comparison_parquet,
};
use moescope_report::{markdown_escape, sanitize};
use moescope_trace::Run;
use serde_json::{Value, json};

use crate::ui;

/// What differs between two runs: routing, output, speed, memory.
#[derive(Args)]
pub(crate) struct Compare {
    /// Run directory to compare with.
    base: PathBuf,
    /// Run directory to compare: another checkpoint, dtype, device or version.
    new: PathBuf,
    /// Compare speed even if devices, drivers or hosts differ.
    #[arg(long)]
    across_devices: bool,
    /// How the comparison is printed; json, csv and parquet hold every row.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// File to write; - is stdout.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
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
        if self.format == Format::Parquet {
            ui::refuse_binary(&self.output)?;
        }
        let runs = [Run::open(&self.base)?, Run::open(&self.new)?];
        let [base, new] = [RunData::load(&runs[0])?, RunData::load(&runs[1])?];
        let mut comparison = compare_across(&base, &new, &Options::default(), self.across_devices);
        let names = distinct_names(&[&base.manifest, &new.manifest]);
        [comparison.base_name, comparison.other_name] = [0, 1].map(|at| {
            let labels = [&base, &new][at].manifest.labels(runs[at].is_partial());
            format!("{}{}", names[at], ui::bracketed(&labels))
        });
        let bytes = match self.format {
            Format::Text => {
                text(&comparison, |name| sanitize(name).into_owned(), ui::table).into_bytes()
            }
            Format::Md => text(&comparison, markdown_escape, markdown).into_bytes(),
            Format::Json => {
                (serde_json::to_string_pretty(&document(&comparison))? + "\n").into_bytes()
            }
            Format::Csv => csv(&comparison).into_bytes(),
            Format::Parquet => {
                let mut bytes = Vec::new();
                write_comparison_parquet(&comparison, &mut bytes).context("--format parquet")?;
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
        Ok(())
    }
}

fn csv(comparison: &Comparison) -> String {
    let number = |x: Option<f64>| x.map_or_else(String::new, |x| x.to_string());
    let cells = |row: &MetricRow| {
        vec![
            row.metric.to_owned(),
            row.layer.map_or_else(String::new, |layer| layer.to_string()),
            expert(row).map_or_else(String::new, |expert| expert.to_string()),
            row.phase.unwrap_or_default().to_owned(),
            row.value.to_string(),
            number(row.interval.map(|(low, _)| low)),
            number(row.interval.map(|(_, high)| high)),
            number(row.chance),
            row.unit.to_owned(),
            comparison.base_name.clone(),
            comparison.other_name.clone(),
        ]
    };
    ui::csv(&COMPARISON_COLUMNS, &comparison.rows.iter().map(cells).collect::<Vec<_>>())
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

fn expert(row: &MetricRow) -> Option<u16> {
    match row.index? {
        Index::Expert(expert) => Some(expert),
        _ => None,
    }
}

/// What the rows of a comparison say, with tables as `table` makes them.
fn text(
    comparison: &Comparison,
    escape: impl Fn(&str) -> String,
    table: impl Fn(&[&str], &[Vec<String>]) -> String,
) -> String {
    // Two trailing spaces keep the lines apart in Markdown.
    let mut out = format!(
        "base: {}  \nnew:  {}\n\n",
        escape(&comparison.base_name),
        escape(&comparison.other_name)
    );
    match &comparison.token_wise {
        TokenWise::Compared { tokens, left_out } => {
            out.push_str(&format!(
                "{} tokens that both read after the same tokens",
                ui::count(*tokens as u64)
            ));
            if *left_out > 0 {
                out.push_str(&format!(
                    "; {} of the base come after a difference or are in the base only",
                    ui::count(*left_out as u64)
                ));
            }
            out.push_str("\n\n");
        }
        TokenWise::Refused(refusal) => {
            out.push_str(&format!("not compared token by token: {refusal}\n\n"));
        }
    }
    let routing = routing(comparison);
    if !routing.is_empty() {
        let header =
            ["layer", "same experts", "95 %", "by chance", "same set", "other first", "shift"];
        out.push_str(&table(&header, &routing));
        out.push_str(
            "\nsame experts: mean share of a token's experts; other first: tokens whose first choice \
             differs; shift: Jensen-Shannon divergence of the use of experts, nats\n\n",
        );
    }
    let rest = rest(comparison);
    if !rest.is_empty() {
        out.push_str(&table(&["", "new against base", "95 %"], &rest));
    }
    // What was said about tokens holds for output too.
    let missing = unsaid(comparison);
    if !missing.is_empty() {
        out.push('\n');
    }
    for (part, refusal) in missing {
        out.push_str(&format!("not compared: {part}: {refusal}{}\n", hint(refusal)));
    }
    out
}

/// Routing by layer, the whole model last.
fn routing(comparison: &Comparison) -> Vec<Vec<String>> {
    let metrics = ["routing_overlap", "same_experts", "top1_flips", "distribution_shift"];
    let mut layers: Vec<Option<u16>> = Vec::new();
    for row in comparison.rows.iter().filter(|row| metrics.contains(&row.metric)) {
        if row.layer.is_some() && !layers.contains(&row.layer) {
            layers.push(row.layer);
        }
    }
    if !layers.is_empty() {
        layers.push(None);
    }
    let of_layer = |layer: &Option<u16>| {
        let find = |metric: &str| {
            comparison.rows.iter().find(|row| row.metric == metric && row.layer == *layer)
        };
        let share =
            |row: Option<&MetricRow>| row.map_or_else(|| "-".to_owned(), |row| percent(row.value));
        let overlap = find("routing_overlap");
        vec![
            layer.map_or_else(|| "all".to_owned(), |layer| layer.to_string()),
            share(overlap),
            overlap.and_then(|row| row.interval).map_or_else(
                || "-".to_owned(),
                |(low, high)| format!("{} to {}", percent(low), percent(high)),
            ),
            overlap.and_then(|row| row.chance).map_or_else(|| "-".to_owned(), percent),
            share(find("same_experts")),
            share(find("top1_flips")),
            find("distribution_shift")
                .map_or_else(|| "-".to_owned(), |row| format!("{:.4}", row.value)),
        ]
    };
    layers.iter().map(of_layer).collect()
}

/// Output, speed and memory.
fn rest(comparison: &Comparison) -> Vec<Vec<String>> {
    let ratio = |x: f64| format!("x{x:.3}");
    let nats = |x: f64| format!("{x:.4} nats");
    type Shown = fn(f64) -> String;
    let kinds: [(&str, &str, Shown); 7] = [
        ("equal_tokens", "equal generated tokens", percent),
        ("logprob_difference", "log-probability, mean distance", nats),
        ("logprob_change", "log-probability, mean change", nats),
        ("speed_ratio", "tokens/s", ratio),
        ("bytes_in_use_ratio", "device memory in use", ratio),
        ("bytes_reserved_ratio", "device memory reserved", ratio),
        ("rss_ratio", "process memory", ratio),
    ];
    let mut rows = Vec::new();
    for (metric, words, shown) in kinds {
        for row in comparison.rows.iter().filter(|row| row.metric == metric) {
            let phase = row.phase.map_or_else(String::new, |phase| format!(", {phase}"));
            let interval = row.interval.map_or_else(
                || "-".to_owned(),
                |(low, high)| format!("{} to {}", shown(low), shown(high)),
            );
            rows.push(vec![format!("{words}{phase}"), shown(row.value), interval]);
        }
    }
    rows
}

/// A share in percent; one that is nearly all is not rounded to all.
fn percent(share: f64) -> String {
    match share {
        share if share < 1.0 && share > 0.999 => format!("{:.3} %", (share * 1e5).floor() / 1e3),
        share if share > 0.0 && share < 0.001 => format!("{:.3} %", (share * 1e5).ceil() / 1e3),
        share => format!("{:.1} %", share * 100.0),
    }
}

fn markdown(header: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let header: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    let rule: Vec<String> =
        (0..header.len()).map(|at| if at == 0 { "---" } else { "---:" }.to_owned()).collect();
    let rows: String = rows.iter().map(|row| line(row)).collect();
    line(&header) + &line(&rule) + &rows
}

fn document(comparison: &Comparison) -> Value {
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
    let row = |row: &MetricRow| {
        json!({
            "metric": row.metric,
            "layer": row.layer,
            "expert": expert(row),
            "phase": row.phase,
            "value": row.value,
            "low": row.interval.map(|(low, _)| low),
            "high": row.interval.map(|(_, high)| high),
            "chance": row.chance,
            "unit": row.unit,
        })
    };
    json!({
        "base": comparison.base_name,
        "new": comparison.other_name,
        "token_wise": token_wise,
        "missing": missing,
        "rows": comparison.rows.iter().map(row).collect::<Vec<_>>(),
    })
}
