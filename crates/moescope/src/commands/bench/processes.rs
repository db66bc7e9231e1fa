//! `--processes`: the samples of a bench from several processes of the same binary, one after the other.
//!
//! Where the weights of a model happen to lie makes a process some percent faster or slower for as long as it
//! lives, and no number of its samples shows that. Each process here loads, warms up and samples by itself; the
//! interval is over processes then.

use std::{
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use moescope_record::bench::result::merged;
use moescope_trace::BenchResult;
use serde_json::Value;

use super::{super::interrupt::Interrupt, Bench, Form, Printed, output::File};
use crate::ui;

/// What one process measured.
struct Part {
    result: BenchResult,
    labels: Vec<String>,
    /// When it began.
    at: Duration,
}

impl Bench {
    /// Makes this the measurement of process `number` of several.
    pub(super) fn become_part(&mut self, number: u32) {
        let (all, processes) = (self.repetitions, self.processes);
        (self.format, self.output) = (Form::Jsonl, None);
        self.repetitions = all / processes + u32::from(number < all % processes);
        // Peaks of the device are measured once.
        self.no_peaks |= number + 1 < processes;
    }
}

pub(super) fn execute(bench: &Bench) -> anyhow::Result<ExitCode> {
    let Bench { processes, repetitions, .. } = *bench;
    if repetitions < processes {
        bail!(
            "--processes {processes}: each takes a sample at least; raise -r to {processes} or more"
        );
    }
    let mut file = bench.output.as_deref().map(File::open).transpose()?.flatten();
    let interrupt = Interrupt::listen(Some(super::STOPPING))?;
    let start = Instant::now();
    let mut parts: Vec<Part> = Vec::new();
    for number in 0..processes {
        ui::note(format!("process {} of {processes}", number + 1));
        parts.extend(part(number, start.elapsed(), &interrupt)?);
        if let (1, Some(file), Some(part)) = (parts.len(), &file, parts.first()) {
            file.check_columns(&Printed { result: &part.result, labels: &part.labels })?;
        }
        if interrupt.is_asked() {
            break;
        }
    }
    let labels = parts.first().map_or_else(Vec::new, |part| part.labels.clone());
    let parts = parts.into_iter().map(|part| (part.at, part.result)).collect();
    let Some(mut result) = merged(parts, repetitions) else {
        return Ok(interrupt.exit_code());
    };
    result.command = ui::command_line();
    let printed = Printed { result: &result, labels: &labels };
    if let Some(file) = &mut file {
        file.write(&printed)?;
    }
    ui::print(&bench.format.of(&printed)?)?;
    bench.exit_code(&result, interrupt.is_asked(), &interrupt)
}

/// Measures in a process of its own; nothing where that was interrupted before it had anything.
fn part(number: u32, at: Duration, interrupt: &Interrupt) -> anyhow::Result<Option<Part>> {
    let program = std::env::current_exe().context("cannot find the program itself")?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).args(["--part", &number.to_string()]);
    // Ctrl-C reaches it as it reaches this one.
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.context("cannot start a process")?;
    if output.stdout.is_empty() && interrupt.is_asked() {
        return Ok(None);
    }
    if !output.status.success() && !interrupt.is_asked() {
        bail!("process {} ended with {}", number + 1, output.status);
    }
    let text = String::from_utf8(output.stdout).context("what a process printed is no text")?;
    let result = BenchResult::parse(&text, std::path::Path::new("a process of the bench"))?;
    let document: Value = serde_json::from_str(&text)?;
    let labels = document["labels"].as_array().into_iter().flatten();
    let labels = labels.filter_map(|label| label.as_str().map(str::to_owned)).collect();
    Ok(result.into_iter().next().map(|result| Part { result, labels, at }))
}
