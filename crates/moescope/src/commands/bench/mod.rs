//! `moescope bench`.

mod columns;
mod conditions;
mod csv;
mod document;
mod markdown;
mod output;
mod processes;
mod progress;
mod summary;
mod text;
mod workload;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::bail;
use clap::{Args, ValueEnum};
use moescope_model::{
    Adapter, AdapterType, Capacity, Checkpoint, Demand, LoadOptions, ModelSpec, MoeModel,
    WeightsSummary, check, describe, device, load_within,
};
use moescope_record::{
    bench::{
        Arm, Bench as Session, Grid, Measured, Numbers, Options, Pair, Plan, check_context,
        check_room, result,
    },
    conditions::{Subject, device_info},
    energy::Meter,
    environment::{self, Roots, autotune::Decisions},
    inject::inject,
    peaks,
};
use moescope_trace::{BenchResult, bench::Configuration, manifest::Injected};

use self::{output::File, workload::WorkloadArgs};
use super::interrupt::{Interrupt, Says};
use crate::{
    args::{Compute, Inject},
    model::{self, ModelArgs, Opened},
    ui::{self, Unit},
};

const STOPPING: Says = Says {
    unsaved: "stopping after this pass; Ctrl-C again loses the rows",
    saved: "stopping; the rows are in the file already",
};

/// Throughput of a model over a grid: prompt processing and token generation, by depth and batch.
///
/// Every combination of the lists is a row. -p measures prompts, -n generation, each by itself; sizes are lists
/// and ranges: 128,512 or 0-4096+1024 or 128-1024*2. All rows are run until their times are stable, then sampled
/// in turns. docs/METHODOLOGY.md says what is measured and how.
#[derive(Args)]
pub(crate) struct Bench {
    #[command(flatten)]
    model: ModelArgs,
    /// Prompt lengths, a row each; 0 is none.
    #[arg(short = 'p', long = "prompt-tokens", default_value = "512", value_name = "LIST")]
    prompts_of: Numbers,
    /// Tokens to generate, a row each; 0 is none.
    #[arg(short = 'n', long = "generate", default_value = "128", value_name = "LIST")]
    generate: Numbers,
    /// A prompt and a generation after it in one row; may be given several times. -pg does as well.
    #[arg(long = "pg", value_name = "P,G")]
    pairs: Vec<Pair>,
    /// Tokens in the cache before the measurement.
    #[arg(short = 'd', long, default_value = "0", value_name = "LIST")]
    depth: Numbers,
    /// Sequences at once.
    #[arg(short = 'b', long, default_value = "1", value_name = "LIST")]
    batch: Numbers,
    /// Samples per row; 5 at least for an interval.
    #[arg(short = 'r', long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repetitions: u32,
    /// Spread the samples over this many processes, one after the other, each of which loads the model anew: the
    /// interval is over processes then (5 or more), and sees what no process sees by itself, as where its memory lies.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    processes: u32,
    /// Which of the processes this is.
    #[arg(long, hide = true)]
    part: Option<u32>,
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    compute: Compute,
    /// Seed of random weights, of random ids, and of the order of samples.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Do not measure what the device reads and computes at most, which MBU and MFU are shares of.
    #[arg(long)]
    no_peaks: bool,
    #[command(flatten)]
    inject: Inject,
    /// Name in tables; the model's by default.
    #[arg(long)]
    name: Option<String>,
    /// How the result is printed. JSON holds all raw samples.
    #[arg(long, value_enum, default_value = "text")]
    format: Form,
    /// Add the result to a file as well: as a line of JSON with all raw samples (for `gate` and `history`), or as
    /// its name says: .csv, .md, .txt, and .json, which stays one document (an array from the second result on).
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Forms of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Aligned columns.
    Text,
    /// Tables laid out as llama-bench does.
    Markdown,
    /// A line per row.
    Csv,
    /// One document with all raw samples.
    Json,
    /// The same on one line.
    Jsonl,
}

/// A result and what is needed to print it.
struct Printed<'a> {
    result: &'a BenchResult,
    /// How its numbers must be labelled.
    labels: &'a [String],
}

/// A loaded model.
struct Loaded {
    model: Box<dyn MoeModel>,
    weights: WeightsSummary,
}

impl Bench {
    pub(crate) fn execute(mut self) -> anyhow::Result<ExitCode> {
        match self.part {
            Some(number) => self.become_part(number),
            None if self.processes > 1 => return processes::execute(&self),
            None => {}
        }
        self.workload.put_in_order(&mut self.model);
        // CubeCL reads its configuration once, when the first device is opened.
        let decisions = Decisions::watch();
        let mut file = self.output.as_deref().map(File::open).transpose()?.flatten();
        let (adapter, note) = device::choose(self.compute.device)?;
        if let Some(note) = note {
            ui::note(note);
        }
        let name = match &self.name {
            Some(name) => name.clone(),
            None => self.model.name()?,
        };
        let capacity = self.compute.capacity(&adapter);
        let fits = |checkpoint: &Checkpoint| {
            check(checkpoint, &adapter.open(), self.compute.dtype, &Demand::default(), &capacity)
        };
        let Opened { checkpoint, source } = self.model.open(self.seed, fits)?;
        let spec = describe(&checkpoint)?;
        let workload = self.workload.open(&checkpoint, &spec, &name, &self)?;
        let rows = self.grid().configurations(workload.name())?;
        check_context(&rows, &spec)?;
        let mut options = Options {
            samples: self.repetitions,
            // Another order in every process.
            seed: self.seed.wrapping_add(self.part.unwrap_or_default().into()),
            capacity: Some(capacity),
            ..Options::default()
        };
        self.check_room(&rows, &spec, &adapter, &capacity)?;
        let mut labels = model::labels(&checkpoint);
        let injected = self.inject.faults();
        let faults = injected.map_or_else(Vec::new, Injected::labels);
        labels.extend(faults.into_iter().map(str::to_owned));
        if adapter.device_type == AdapterType::Software {
            labels.push("software adapter".into());
        }
        self.announce(&name, &labels, &rows, &Plan::of(&rows, &spec, &options), &workload, &spec);

        let Loaded { model, weights } = self.load(&checkpoint, &adapter, &capacity)?;
        let model = inject(model, injected);
        let target = model.device();
        let info = device_info(&adapter);
        let roots = Roots::default();
        let subject = Subject {
            name: &name,
            source: &source,
            checkpoint: &checkpoint,
            spec: model.spec(),
            weights: &weights,
            dtype: self.compute.dtype,
            moe_impl: self.compute.moe_impl,
            injected,
            adapter: &adapter,
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("MOESCOPE_GIT_COMMIT"),
        };
        let fingerprint = environment::fingerprint(&subject, target, &roots);
        let mut meter = match Meter::open(target, &info, &roots) {
            Ok(meter) => Some(meter),
            Err(why) => {
                ui::note(why.to_string());
                None
            }
        };
        if adapter.backend != "flex" {
            ui::note(
                "the first passes compile shaders, which can take a minute; they are no samples",
            );
        }

        let energy = meter.as_ref().map(Meter::describe);
        options.energy_over =
            Duration::from_nanos(energy.as_ref().map_or(0, |meter| meter.shortest_ns()));
        let arm = Arm { model: model.as_ref(), dtype: self.compute.dtype };
        let session = Session { arms: &[arm], configurations: &rows, workload: &workload, options };
        let command = ui::command_line();
        let mut result =
            result::result(result::now(), command, fingerprint, energy, &workload, Vec::new());
        if let Some(file) = &file {
            file.check_columns(&Printed { result: &result, labels: &labels })?;
        }
        let interrupt = Interrupt::listen(self.part.is_none().then_some(STOPPING))?;
        let Measured { mut arms, interrupted, unstable } =
            run(&session, meter.as_mut(), &interrupt);
        result.rows = arms.pop().unwrap_or_default();
        for (_, place) in unstable {
            ui::note(format!(
                "{}: times were not stable within 5 % after {} warm-ups; the machine may be busy",
                rows[place], result.rows[place].warm_ups
            ));
        }
        // Before the probes: what is tuned for them is none of the model's.
        result.fingerprint.autotune.decisions = decisions.map(|d| d.chosen()).unwrap_or_default();
        let any = result.rows.iter().any(|row| !row.samples.is_empty());
        if !self.no_peaks && any && !interrupt.is_asked() {
            // The probes take seconds: what was measured is safe before.
            if let Some(file) = file.as_mut().filter(|file| file.is_regular()) {
                file.write(&Printed { result: &result, labels: &labels })?;
                interrupt.saved();
            }
            let stop = || interrupt.is_asked();
            let found = peaks::measure(target, info.device_type, self.compute.dtype, &stop);
            result.peaks = found.inspect_err(|why| ui::note(format!("no MBU, no MFU: {why}"))).ok();
        }
        let printed = Printed { result: &result, labels: &labels };
        if let Some(file) = &mut file {
            file.write(&printed)?;
        }
        ui::print(&self.format.of(&printed)?)?;
        self.exit_code(&result, interrupted, &interrupt)
    }

    fn grid(&self) -> Grid {
        Grid {
            prompts: self.prompts_of.0.clone(),
            generations: self.generate.0.clone(),
            pairs: self.pairs.clone(),
            depths: self.depth.0.clone(),
            batches: self.batch.0.clone(),
        }
    }

    /// Refuses a grid of which no row fits, before anything is loaded; rows that do not fit beside others that do
    /// keep the reason.
    fn check_room(
        &self,
        rows: &[Configuration],
        spec: &ModelSpec,
        adapter: &Adapter,
        capacity: &Capacity,
    ) -> anyhow::Result<()> {
        if capacity.memory.is_none() {
            ui::note(
                "the memory of this device is not known; --memory-limit checks sizes before loading",
            );
        }
        let device = adapter.open();
        let dtype = self.compute.dtype;
        let mut refused = Vec::new();
        for row in rows {
            refused.extend(check_room(row, spec, dtype, &device, capacity).err());
        }
        let all = refused.len() == rows.len();
        match refused.into_iter().next().filter(|_| all) {
            Some(refusal) => Err(refusal.into()),
            None => Ok(()),
        }
    }

    /// What is going to happen, before anything is loaded.
    fn announce(
        &self,
        name: &str,
        labels: &[String],
        rows: &[Configuration],
        plan: &Plan,
        workload: &moescope_record::bench::Workload,
        spec: &ModelSpec,
    ) {
        ui::note(format!(
            "{name}{}: {} rows x {} samples of {}, at least {} tokens in {} passes; weights {}, KV cache up to {}",
            ui::bracketed(labels),
            plan.rows,
            self.repetitions,
            workload.name(),
            ui::count(plan.tokens),
            ui::count(plan.rows as u64 * u64::from(plan.passes)),
            ui::bytes(spec.bytes(self.compute.dtype)),
            ui::bytes(plan.cache_bytes),
        ));
        const SHOWN: usize = 12;
        let names: Vec<String> = rows.iter().take(SHOWN).map(summary::test).collect();
        let more = rows.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(", {more} more") } else { String::new() };
        ui::note(format!("rows: {}{more}", names.join(", ")));
        let longest =
            rows.iter().map(|r| r.depth as usize + r.prompt as usize + r.generate as usize);
        if let Some((has, needs)) =
            workload.tokens().zip(longest.max()).filter(|(has, needs)| has < needs)
        {
            ui::note(format!(
                "the workload has {has} tokens and starts over: the longest row needs {needs}"
            ));
        }
    }

    fn load(
        &self,
        checkpoint: &Checkpoint,
        adapter: &Adapter,
        capacity: &Capacity,
    ) -> anyhow::Result<Loaded> {
        let bar = ui::progress(0, "loading", Unit::Bytes);
        let progress = |read, total| {
            bar.set_length(total);
            bar.set_position(read);
        };
        let options = LoadOptions {
            device: &adapter.open(),
            dtype: self.compute.dtype,
            moe_impl: self.compute.moe_impl,
            progress: &progress,
        };
        let (model, weights) = load_within(checkpoint, &options, &Demand::default(), capacity)?;
        bar.finish_and_clear();
        Ok(Loaded { model, weights })
    }

    fn exit_code(
        &self,
        result: &BenchResult,
        interrupted: bool,
        interrupt: &Interrupt,
    ) -> anyhow::Result<ExitCode> {
        if interrupted {
            ui::note("interrupted: rows keep the samples they have");
        }
        if interrupt.is_asked() {
            return Ok(interrupt.exit_code());
        }
        let failed = result.rows.iter().filter(|row| row.error.is_some());
        for row in failed {
            let reason = row.error.as_deref().unwrap_or_default();
            ui::note(format!("{}: {reason}", row.configuration));
        }
        if result.rows.iter().all(|row| row.samples.is_empty()) {
            bail!("no row could be measured");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Measures, with progress, until it is done or interrupted.
fn run(session: &Session<'_>, mut meter: Option<&mut Meter>, interrupt: &Interrupt) -> Measured {
    let mut bar = progress::Bar::new();
    let mut joules = || meter.as_mut().and_then(|meter| meter.joules());
    let measured = session.run(&mut joules, &mut |now| bar.show(now), &|| interrupt.is_asked());
    bar.finish();
    measured
}

impl Form {
    fn of(self, printed: &Printed<'_>) -> anyhow::Result<String> {
        Ok(match self {
            Form::Text => text::render(printed),
            Form::Markdown => markdown::render(printed),
            Form::Csv => csv::render(printed),
            Form::Json => serde_json::to_string_pretty(&document::of(printed)?)? + "\n",
            Form::Jsonl => serde_json::to_string(&document::of(printed)?)? + "\n",
        })
    }
}
