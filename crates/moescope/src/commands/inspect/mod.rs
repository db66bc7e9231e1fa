//! `moescope inspect`.

mod csv;
mod document;
mod facts;
mod text;

use clap::Args;
use moescope_model::{DType, DeviceChoice, describe, device};

use self::facts::Facts;
use crate::{
    args::{Format, capacity},
    model::{self, ModelArgs, Opened},
    quantity::{Bandwidth, Bytes},
    ui,
};

/// Parameters, bytes and MoE shape of a model, what a token reads, and what of it fits here: from its config
/// alone.
#[derive(Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    model: ModelArgs,
    /// Type the weights would be held in, where only one is counted (`bytes` of --format json).
    #[arg(long, default_value = "f32", value_name = "f32|f16|bf16")]
    dtype: DType,
    /// Context that reading and fit are counted for; 4096, or the model's longest, by default.
    #[arg(long, value_name = "TOKENS")]
    context: Option<usize>,
    /// Device the model should fit.
    #[arg(long, default_value = "auto", value_name = "auto|flex|wgpu[:N]")]
    device: DeviceChoice,
    /// Memory to fit the model in, instead of what is free on the device.
    #[arg(long, value_name = "BYTES")]
    memory_limit: Option<Bytes>,
    /// Memory bandwidth for the simulated tokens per second.
    #[arg(long, default_value = "100GB/s", value_name = "BYTES/s")]
    bandwidth: Bandwidth,
    /// How the table is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// Context counted for where none is asked for.
const CONTEXT: usize = 4096;

impl Inspect {
    pub(crate) fn execute(self) -> anyhow::Result<()> {
        let entry = self.model.entry()?;
        let Opened { checkpoint, source } = self.model.describe()?;
        let spec = describe(&checkpoint)?;
        let labels = model::labels(&checkpoint);
        let (adapter, _) = device::choose(self.device)?;
        let asked = self.context.unwrap_or(CONTEXT.min(spec.context)).max(1);
        if asked > spec.context {
            let own = ui::count(spec.context as u64);
            ui::note(format!(
                "the model's context is {own} tokens; counted for those, not for {asked}"
            ));
        }
        let facts = Facts {
            stored: entry.as_ref().map(|entry| entry.stored).or(checkpoint.stored()),
            entry,
            source,
            labels,
            dtype: self.dtype,
            context: asked.min(spec.context),
            device: adapter.option.clone(),
            on_gpu: adapter.backend != "flex",
            capacity: capacity(&adapter, self.memory_limit),
            bandwidth: self.bandwidth.0,
            whole: checkpoint.layers_kept().is_none(),
            spec,
        };
        ui::print(&match self.format {
            Format::Json => serde_json::to_string_pretty(&document::document(&facts))? + "\n",
            Format::Csv => csv::csv(&facts),
            Format::Text => text::text(&facts),
        })
    }
}
