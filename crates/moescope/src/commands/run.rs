//! `moescope run`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use moescope_model::{
    Adapter, AdapterType, Checkpoint, Demand, LoadOptions, check, describe, device, load_within,
};
use moescope_record::{
    Keep, RunOptions, Sampling, Summary,
    conditions::{Conditions, Subject},
    inject::inject,
    prompts,
    recorder::scored_rows,
    run::{encode, run},
};
use moescope_report::sanitize;
use moescope_trace::{BackgroundWriter, RunWriter, manifest::Injected};

use crate::{
    args::{Compute, Format, Generation, Inject, Output},
    model::{self, ModelArgs, Opened},
    ui::{self, Unit},
};

/// Record a run.
#[derive(Args)]
pub(crate) struct Run {
    #[command(flatten)]
    model: ModelArgs,
    /// Prompts: a .jsonl or .txt file, a directory of them, or - for JSON lines on stdin.
    #[arg(long, value_name = "PATH|-")]
    prompts: PathBuf,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    compute: Compute,
    #[command(flatten)]
    generation: Generation,
    /// Use only the first N prompts of each domain.
    #[arg(long, value_name = "N")]
    per_domain: Option<usize>,
    /// Keep the whole router distribution of every token, not only entropy and margin.
    #[arg(long)]
    probs: bool,
    /// Keep the norm of every selected expert's output, for the pruning view; passes take longer.
    #[arg(long)]
    saliency: bool,
    /// Time every component, with a synchronisation after each; step times are then longer than real ones.
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    inject: Inject,
    /// Name of the run in tables and legends; the model's by default.
    #[arg(long)]
    name: Option<String>,
    /// How the summary is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Run {
    pub(crate) fn execute(self) -> anyhow::Result<()> {
        let (adapter, note) = device::choose(self.compute.device)?;
        if let Some(note) = note {
            ui::note(note);
        }
        let name = match &self.name {
            Some(name) => name.clone(),
            None => self.model.name()?,
        };
        let job = Job {
            model: &self.model,
            name: &name,
            adapter: &adapter,
            compute: &self.compute,
            generation: &self.generation,
            prompts: &self.prompts,
            per_domain: self.per_domain,
            keep: Keep { probs: self.probs, output_norms: self.saliency },
            profile: self.profile,
            injected: self.inject.faults(),
            output: &self.output.output,
            force: self.output.force,
        };
        let (summary, labels) = job.record()?;
        ui::print(&match self.format {
            Format::Text => text(&name, &labels, &adapter, &self.output.output, &summary),
            Format::Json => serde_json::to_string_pretty(&document(&summary, &labels))? + "\n",
            Format::Csv => csv(&summary, &labels),
        })
    }
}

/// One run to record, from `run` or `demo`.
pub(crate) struct Job<'a> {
    pub(crate) model: &'a ModelArgs,
    pub(crate) name: &'a str,
    pub(crate) adapter: &'a Adapter,
    pub(crate) compute: &'a Compute,
    pub(crate) generation: &'a Generation,
    pub(crate) prompts: &'a Path,
    pub(crate) per_domain: Option<usize>,
    pub(crate) keep: Keep,
    pub(crate) profile: bool,
    pub(crate) injected: Option<Injected>,
    pub(crate) output: &'a Path,
    pub(crate) force: bool,
}

impl Job<'_> {
    /// Loads, checks everything that can be checked before anything is written, runs, records.
    ///
    /// Returns what it measured and how its numbers must be labelled.
    pub(crate) fn record(&self) -> anyhow::Result<(Summary, Vec<String>)> {
        // Before the model, which may have to be fetched.
        let mut prompts = prompts::read(self.prompts)?;
        let capacity = self.compute.capacity(self.adapter);
        let target = self.adapter.open();
        let fits = |checkpoint: &Checkpoint| {
            check(checkpoint, &target, self.compute.dtype, &Demand::default(), &capacity)
        };
        let Opened { checkpoint, source } = self.model.open(self.generation.seed, fits)?;
        let text = self.model.text(&checkpoint)?;
        if let Some(n) = self.per_domain {
            let mut seen = std::collections::HashMap::<String, usize>::new();
            prompts.retain(|prompt| {
                let count = seen.entry(prompt.domain.clone()).or_default();
                *count += 1;
                *count <= n
            });
        }
        let mut labels = model::labels(&checkpoint);
        let faults = self.injected.map_or_else(Vec::new, Injected::labels);
        labels.extend(faults.into_iter().map(str::to_owned));
        if self.adapter.device_type == AdapterType::Software {
            labels.push("software adapter".into());
        }
        if self.profile {
            labels.push("profiled".into());
        }
        if !labels.is_empty() {
            ui::note(format!("{}: {}", self.name, labels.join(", ")));
        }
        let spec = describe(&checkpoint)?;
        let prompts = encode(&spec, &text, &prompts, self.generation.max_tokens)?;
        if capacity.memory.is_none() {
            ui::note(
                "the memory of this device is not known; --memory-limit checks a size before loading",
            );
        }
        let bar = ui::progress(0, "loading", Unit::Bytes);
        let progress = |read, total| {
            bar.set_length(total);
            bar.set_position(read);
        };
        let options = LoadOptions {
            device: &target,
            dtype: self.compute.dtype,
            moe_impl: self.compute.moe_impl,
            progress: &progress,
        };
        let longest = prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(1);
        let context = longest + self.generation.max_tokens;
        let scored = scored_rows(spec.vocab, longest, capacity.tensor);
        let demand = Demand { batch: 1, context, prompt: longest, scored };
        let (model, weights) = load_within(&checkpoint, &options, &demand, &capacity)?;
        let model = inject(model, self.injected);
        bar.finish_and_clear();

        let options = RunOptions {
            max_tokens: self.generation.max_tokens,
            sampling: Sampling {
                temperature: self.generation.temperature,
                top_k: self.generation.top_k,
                top_p: self.generation.top_p,
            },
            seed: self.generation.seed,
            // The text of random weights has no end worth stopping at.
            eos: if checkpoint.is_random() { Vec::new() } else { checkpoint.eos_ids() },
            keep: self.keep,
            profile: self.profile,
        };
        if let Some(day) = text.prompt_date() {
            ui::note(format!(
                "the chat template writes the day ({day}) into prompts, so they differ from day to day; \
                 SOURCE_DATE_EPOCH fixes it"
            ));
        }
        let subject = Subject {
            name: self.name,
            source: &source,
            checkpoint: &checkpoint,
            spec: model.spec(),
            weights: &weights,
            dtype: self.compute.dtype,
            moe_impl: self.compute.moe_impl,
            injected: self.injected,
            adapter: self.adapter,
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("MOESCOPE_GIT_COMMIT"),
        };
        let command = ui::command_line();
        let conditions = Conditions { subject, prompts: &prompts, options: &options, command };
        let manifest = conditions.manifest();
        let writer =
            BackgroundWriter::spawn(RunWriter::create(self.output, manifest, self.force)?)?;

        let total: usize = prompts.iter().map(|p| p.tokens.len() + options.max_tokens).sum();
        if self.adapter.backend != "flex" {
            ui::note("warming up: compiling shaders, which can take a minute");
        }
        let bar = ui::progress(total as u64, self.name, Unit::Tokens);
        let mut progress = |p: moescope_record::Progress| bar.set_position(p.tokens);
        let (summary, writer) =
            run(model.as_ref(), &text, &prompts, &options, writer, &mut progress).with_context(
                || format!("{}: the run stays readable as partial", self.output.display()),
            )?;
        writer.finish()?;
        bar.finish_and_clear();
        Ok((summary, labels))
    }
}

fn text(
    name: &str,
    labels: &[String],
    adapter: &Adapter,
    output: &Path,
    summary: &Summary,
) -> String {
    let rate = |rate: Option<f64>| rate.map_or("-".into(), |r| format!("{r:.0} tokens/s"));
    let mut rows = vec![
        ("model", format!("{}{}", sanitize(name), ui::bracketed(labels))),
        ("device", format!("{} ({})", sanitize(&adapter.name), adapter.option)),
        ("prompts", ui::count(summary.prompts as u64)),
        (
            "prefill",
            format!(
                "{} tokens, {}",
                ui::count(summary.prefill_tokens),
                rate(summary.prefill_rate())
            ),
        ),
        (
            "decode",
            format!("{} tokens, {}", ui::count(summary.decode_tokens), rate(summary.decode_rate())),
        ),
    ];
    if let Some((mean, count)) = summary.mean_logprob {
        let perplexity = (-mean).exp();
        rows.push((
            "log-probability",
            format!(
                "{mean:.3} nats per token over {} tokens (perplexity {perplexity:.1})",
                ui::count(count)
            ),
        ));
    }
    rows.push(("time", format!("{:.1} s", summary.wall_ns as f64 / 1e9)));
    rows.push(("run", sanitize(&output.display().to_string()).into_owned()));
    rows.iter().map(|(label, value)| format!("{label:<16} {value}\n")).collect()
}

fn document(summary: &Summary, labels: &[String]) -> serde_json::Value {
    serde_json::json!({
        "labels": labels,
        "prompts": summary.prompts,
        "prefill_tokens": summary.prefill_tokens,
        "prefill_tokens_per_second": summary.prefill_rate(),
        "decode_tokens": summary.decode_tokens,
        "decode_tokens_per_second": summary.decode_rate(),
        "mean_logprob_nats": summary.mean_logprob.map(|(mean, _)| mean),
        "scored_tokens": summary.mean_logprob.map_or(0, |(_, count)| count),
        "wall_ns": summary.wall_ns,
    })
}

fn csv(summary: &Summary, labels: &[String]) -> String {
    let number = |x: Option<f64>| x.map_or(String::new(), |x| x.to_string());
    let header = [
        "prompts",
        "prefill_tokens",
        "prefill_tokens_per_second",
        "decode_tokens",
        "decode_tokens_per_second",
        "mean_logprob_nats",
        "wall_ns",
        "labels",
    ];
    let row = vec![
        summary.prompts.to_string(),
        summary.prefill_tokens.to_string(),
        number(summary.prefill_rate()),
        summary.decode_tokens.to_string(),
        number(summary.decode_rate()),
        number(summary.mean_logprob.map(|(mean, _)| mean)),
        summary.wall_ns.to_string(),
        labels.join("; "),
    ];
    ui::csv(&header, &[row])
}
