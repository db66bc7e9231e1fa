//! The commands and the options that mean the same in all of them.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand, ValueEnum};
use moescope_model::{Adapter, Capacity, DType, DeviceChoice, MoeImpl};
use moescope_trace::manifest::Injected;

use crate::{commands, quantity::Bytes};

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Record the bundled model on this machine, compare two runs and write a report.
    Demo(commands::demo::Demo),
    /// Record a run: every prompt prefilled and continued, all routing kept.
    Run(commands::run::Run),
    /// Throughput over a grid: prompt processing and token generation, by depth and batch.
    Bench(commands::bench::Bench),
    /// Every metric of one or more runs, as one long table.
    Analyze(commands::analyze::Analyze),
    /// Write a report over one or more runs: HTML, Markdown, SVG and PNG.
    Report(commands::report::Report),
    /// What differs between two runs: routing, output, speed, memory.
    Compare(commands::compare::Compare),
    /// What a run's routing would mean on another machine: caches, predicted speed, placement.
    Simulate(commands::simulate::Simulate),
    /// Verdict for CI over two measurements: exit code 0 passed, 1 regressed, 2 an error.
    Gate(commands::gate::Gate),
    /// Measurements over time: keep them, find where they change, draw them.
    History(commands::history::History),
    /// Parameters, bytes and MoE shape of a model.
    Inspect(commands::inspect::Inspect),
    /// Devices and their limits.
    Devices(commands::devices::Devices),
    /// Make up a run of any size, to try analyses and to time them.
    Synthetic(commands::synthetic::Synthetic),
}

impl Command {
    pub(crate) fn execute(self) -> anyhow::Result<ExitCode> {
        let done = match self {
            Command::Gate(gate) => return gate.execute(),
            Command::Bench(bench) => return bench.execute(),
            Command::Demo(demo) => demo.execute(),
            Command::Run(run) => run.execute(),
            Command::Analyze(analyze) => analyze.execute(),
            Command::Report(report) => report.execute(),
            Command::Compare(compare) => compare.execute(),
            Command::Simulate(simulate) => simulate.execute(),
            Command::Inspect(inspect) => inspect.execute(),
            Command::History(history) => history.execute(),
            Command::Devices(devices) => devices.execute(),
            Command::Synthetic(synthetic) => synthetic.execute(),
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

/// Where and how a model computes.
#[derive(Args, Clone)]
pub(crate) struct Compute {
    /// auto takes a hardware GPU where there is one, else the CPU.
    #[arg(long, default_value = "auto", value_name = "auto|flex|wgpu[:N]")]
    pub(crate) device: DeviceChoice,
    /// Type the weights are held and multiplied in.
    #[arg(long, default_value = "f32", value_name = "f32|f16|bf16")]
    pub(crate) dtype: DType,
    /// How the experts layers are computed: selected reads only the experts of each token, dense runs all.
    #[arg(long, default_value = "selected", value_name = "selected|dense")]
    pub(crate) moe_impl: MoeImpl,
    /// Memory the model may take; what does not fit is refused before it is read. What is free, by default.
    #[arg(long, value_name = "BYTES")]
    pub(crate) memory_limit: Option<Bytes>,
}

impl Compute {
    /// What an adapter can hold, and may.
    pub(crate) fn capacity(&self, adapter: &Adapter) -> Capacity {
        capacity(adapter, self.memory_limit)
    }
}

/// What an adapter can hold, and may.
pub(crate) fn capacity(adapter: &Adapter, memory_limit: Option<Bytes>) -> Capacity {
    Capacity::of_adapter(adapter).limited(memory_limit.map(|Bytes(bytes)| bytes as u64))
}

/// How tokens are generated.
#[derive(Args, Clone)]
pub(crate) struct Generation {
    /// Tokens generated per prompt; 0 is prefill only.
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = tokens)]
    pub(crate) max_tokens: usize,
    /// Divides the logits before sampling; 0 is greedy.
    #[arg(long, default_value_t = 0.0, value_name = "T", value_parser = non_negative)]
    pub(crate) temperature: f32,
    /// Sample among the K most probable tokens; 0 is all.
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub(crate) top_k: usize,
    /// Sample among the smallest set of tokens with at least this probability.
    #[arg(long, default_value_t = 1.0, value_name = "P", value_parser = probability)]
    pub(crate) top_p: f32,
    /// Seed of the sampler, and of random weights.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

/// Faults put into the forward pass on purpose, to test the gate; every output says so.
#[derive(Args, Clone, Copy, Default)]
pub(crate) struct Inject {
    /// Make every forward pass longer by this share of its own time.
    #[arg(long, hide = true, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent)]
    inject_slowdown: f64,
    /// Send the tokens of one pass in four to other experts in the last MoE layer.
    #[arg(long, hide = true)]
    inject_routing: bool,
}

impl Inject {
    /// What is to be injected, if anything is.
    pub(crate) fn faults(self) -> Option<Injected> {
        let faults =
            Injected { slowdown_percent: self.inject_slowdown, routing: self.inject_routing };
        (faults != Injected::default()).then_some(faults)
    }
}

/// Where results go.
#[derive(Args, Clone)]
pub(crate) struct Output {
    /// Directory to write.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Replace what is there.
    #[arg(long)]
    pub(crate) force: bool,
}

/// How a table is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns.
    Text,
    /// One JSON document.
    Json,
    /// Comma-separated values.
    Csv,
}

/// Tokens beyond any context still count without overflow.
fn tokens(text: &str) -> Result<usize, String> {
    text.parse::<u32>().map(|n| n as usize).map_err(|e| e.to_string())
}

fn non_negative(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(x) if x >= 0.0 && x.is_finite() => Ok(x),
        _ => Err("expected a number of at least 0".into()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if (0.0..=1000.0).contains(&x) => Ok(x),
        _ => Err("expected a number of percent from 0 to 1000".into()),
    }
}

fn probability(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(x) if x > 0.0 && x <= 1.0 => Ok(x),
        _ => Err("expected a number above 0 and at most 1".into()),
    }
}
