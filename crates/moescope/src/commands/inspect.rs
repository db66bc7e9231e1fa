//! `moescope inspect`.

use clap::Args;
use moescope_model::{DType, ModelSpec, describe};
use moescope_report::sanitize;
use serde_json::json;

use crate::{
    args::Format,
    model::{self, ModelArgs, Opened},
    ui,
};

/// Parameters, bytes and MoE shape of a model, from its config alone.
#[derive(Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    model: ModelArgs,
    /// Type the weights would be held in.
    #[arg(long, default_value = "f32", value_name = "f32|f16|bf16")]
    dtype: DType,
    /// Context the key/value cache is counted for; the model's longest by default.
    #[arg(long, value_name = "TOKENS")]
    context: Option<usize>,
    /// How the table is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Inspect {
    pub(crate) fn execute(self) -> anyhow::Result<()> {
        let Opened { checkpoint, source } = self.model.describe()?;
        let spec = describe(&checkpoint)?;
        let labels = model::labels(&checkpoint);
        let context = self.context.unwrap_or(spec.context);
        ui::print(&match self.format {
            Format::Text => text(&spec, &source, &labels, self.dtype, context),
            Format::Csv => ui::csv(
                &["part", "total", "active", "bytes", "labels"],
                &plain_rows(&spec, &labels, self.dtype),
            ),
            Format::Json => {
                let document = document(&spec, &source, &labels, self.dtype, context);
                serde_json::to_string_pretty(&document)? + "\n"
            }
        })
    }
}

fn plain_rows(spec: &ModelSpec, labels: &[String], dtype: DType) -> Vec<Vec<String>> {
    let row = |name: &str, total: u64, active: u64| {
        let bytes = total * dtype.bytes();
        let [total, active, bytes] = [total, active, bytes].map(|n| n.to_string());
        vec![name.to_owned(), total, active, bytes, labels.join("; ")]
    };
    let parts = spec.by_part();
    let mut rows: Vec<_> = parts.iter().map(|(p, t, a)| row(p.as_str(), *t, *a)).collect();
    rows.push(row("all", spec.total_parameters(), spec.active_parameters()));
    rows
}

fn text(spec: &ModelSpec, source: &str, labels: &[String], dtype: DType, context: usize) -> String {
    let row = |name: &str, total: u64, active: u64| {
        let share = 100.0 * active as f64 / spec.active_parameters() as f64;
        vec![
            name.to_owned(),
            ui::count(total),
            ui::count(active),
            format!("{share:.1} %"),
            ui::bytes(total * dtype.bytes()),
        ]
    };
    let parts = spec.by_part();
    let mut rows: Vec<_> = parts.iter().map(|(p, t, a)| row(p.as_str(), *t, *a)).collect();
    rows.push(row("all", spec.total_parameters(), spec.active_parameters()));
    let dtype_column = format!("{dtype}");
    let header = ["part", "parameters", "active", "of active", dtype_column.as_str()];
    let mut out = format!(
        "{}{}\n{} ({}), {} layers, hidden {}, vocabulary {}, context {}\n",
        sanitize(source),
        ui::bracketed(labels),
        sanitize(&spec.architecture),
        spec.family,
        spec.layers,
        ui::count(spec.hidden as u64),
        ui::count(spec.vocab as u64),
        ui::count(spec.context as u64),
    );
    match spec.moe.first() {
        None => out.push_str("dense: no routed experts\n"),
        Some(moe) => out.push_str(&format!(
            "{} MoE layers, {} experts, top-{}, {} shared\n",
            spec.moe.len(),
            moe.experts,
            moe.top_k,
            moe.shared_experts,
        )),
    }
    out.push('\n');
    out.push_str(&ui::table(&header, &rows));
    out.push_str(&format!(
        "\nkey/value cache: {} for {} tokens of one sequence (f32)\n",
        ui::bytes(moescope_model::footprint::kv_bytes(spec, 1, context)),
        ui::count(context as u64),
    ));
    out
}

fn document(
    spec: &ModelSpec,
    source: &str,
    labels: &[String],
    dtype: DType,
    context: usize,
) -> serde_json::Value {
    let parts: Vec<_> = spec
        .by_part()
        .iter()
        .map(|(part, total, active)| {
            json!({
                "part": part.as_str(), "parameters": total, "active": active,
                "bytes": total * dtype.bytes(),
            })
        })
        .collect();
    json!({
        "source": source,
        "labels": labels,
        "architecture": spec.architecture,
        "family": spec.family,
        "layers": spec.layers,
        "hidden": spec.hidden,
        "vocabulary": spec.vocab,
        "context": spec.context,
        "moe": spec.moe,
        "dtype": dtype,
        "total_parameters": spec.total_parameters(),
        "active_parameters": spec.active_parameters(),
        "bytes": spec.bytes(dtype),
        "kv_cache": { "tokens": context, "bytes": moescope_model::footprint::kv_bytes(spec, 1, context) },
        "parts": parts,
    })
}
