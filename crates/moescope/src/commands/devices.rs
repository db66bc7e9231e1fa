//! `moescope devices`.

use clap::Args;
use moescope_model::{Adapter, AdapterType, Capacity, device::adapters};
use moescope_record::conditions::host_info;
use moescope_report::sanitize;

use crate::{args::Format, ui};

/// Devices and their limits.
#[derive(Args)]
pub(crate) struct Devices {
    /// How the table is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

const HEADER: [&str; 9] = [
    "device",
    "name",
    "kind",
    "api",
    "driver",
    "version",
    "free memory",
    "max buffer",
    "max binding",
];

impl Devices {
    pub(crate) fn execute(self) -> anyhow::Result<()> {
        let mut adapters = adapters();
        // The CPU's own name is more use than "CPU".
        adapters.iter_mut().filter(|a| a.device_type == AdapterType::Cpu).for_each(|cpu| {
            cpu.name = host_info().cpu;
        });
        if self.format == Format::Json {
            let adapters = adapters.iter().map(document).collect::<Result<Vec<_>, _>>()?;
            return ui::print(&(serde_json::to_string_pretty(&adapters)? + "\n"));
        }
        let rows: Vec<Vec<String>> = adapters.iter().map(row).collect();
        ui::print(&match self.format {
            Format::Csv => ui::csv(&HEADER, &rows),
            _ => ui::table(&HEADER, &rows),
        })
    }
}

fn document(adapter: &Adapter) -> serde_json::Result<serde_json::Value> {
    let mut document = serde_json::to_value(adapter)?;
    document["memory"] = serde_json::to_value(Capacity::of_adapter(adapter).memory)?;
    Ok(document)
}

fn row(adapter: &Adapter) -> Vec<String> {
    let limit = |name: &str| adapter.limits.get(name).map_or("-".into(), |n| ui::bytes(*n));
    let optional =
        |text: &Option<String>| text.as_deref().map_or("-".into(), |t| sanitize(t).into_owned());
    let kind = serde_json::to_value(adapter.device_type).ok();
    vec![
        adapter.option.clone(),
        sanitize(&adapter.name).into_owned(),
        kind.as_ref().and_then(|k| k.as_str()).unwrap_or("unknown").to_owned(),
        if adapter.api.is_empty() { "-".into() } else { adapter.api.clone() },
        optional(&adapter.driver),
        optional(&adapter.driver_version),
        Capacity::of_adapter(adapter).memory.map_or("unknown".into(), |m| ui::bytes(m.bytes)),
        limit("max_buffer_size"),
        limit("max_storage_buffer_binding_size"),
    ]
}
