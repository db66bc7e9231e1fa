//! `moescope gate`.

mod badge;
mod error;
mod github;
mod junit;
mod markdown;
mod pairs;
mod text;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use moescope_analysis::gate::{Across, Evidence, GateOptions, Look, Verdict, judge, judge_pairs};
use moescope_trace::{BenchResult, Run};

use super::interrupt::{Interrupt, Says};
use crate::ui;

const STOPPING: Says = Says {
    unsaved: "stopping after this measurement; Ctrl-C again ends at once",
    saved: "stopping",
};

/// Verdict for CI: exit code 0 passed, 1 regressed, 2 an error or not comparable.
///
/// What is deterministic (greedy tokens, routing, balance, peak bytes, bytes read per token, dispatches) fails
/// on any difference beyond tight limits. Times fail only where a rank test, the interval of the ratio and
/// a second look all say that they got worse by more than the threshold.
#[derive(Args)]
pub(crate) struct Gate {
    /// Base: a run directory, or a file of bench results.
    #[arg(required_unless_present = "run", conflicts_with = "run", value_name = "BASE")]
    base: Option<PathBuf>,
    /// New measurement, of the same kind.
    #[arg(required_unless_present = "run", conflicts_with = "run", value_name = "NEW")]
    new: Option<PathBuf>,
    /// Second measurements of both, which have to agree before a time fails; without them the earlier and
    /// the later samples have to.
    #[arg(long, num_args = 2, value_names = ["BASE", "NEW"], conflicts_with = "run")]
    retry: Option<Vec<PathBuf>>,
    /// Shell command of the base, run in turns with that of --vs: A B B A. It prints a bench result
    /// (JSON), or writes one, or a run, to {out}.
    #[arg(long, requires = "vs", value_name = "CMD_A")]
    run: Option<String>,
    /// Shell command of the new version.
    #[arg(long, requires = "run", value_name = "CMD_B")]
    vs: Option<String>,
    /// Pairs of --run and --vs to start with; by default what the configuration says, or 10.
    #[arg(long, requires = "run", value_name = "N", value_parser = clap::value_parser!(u16).range(5..=1000))]
    pairs: Option<u16>,
    /// Pairs at most: while an interval is wider than the threshold, or the rank test needs more for so many
    /// times, more are measured; by default what the configuration says, or 100.
    #[arg(long, requires = "run", value_name = "N", value_parser = clap::value_parser!(u16).range(5..=1000))]
    max_pairs: Option<u16>,
    /// With --run: take the first look as final, without a second one where times look worse.
    #[arg(long, requires = "run")]
    no_retry: bool,
    /// Thresholds; by default moescope.toml in this directory, where there is one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Compare although the devices, drivers or machines differ.
    #[arg(long)]
    across_devices: bool,
    /// Compare although weights, types or implementations differ.
    #[arg(long)]
    across_models: bool,
    /// How the verdict is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Form,
    /// Write the verdict in another form as well: markdown=FILE, junit=FILE, json=FILE, badge=FILE,
    /// text=FILE, github=FILE; may be given several times. An error (exit code 2) is written there too. The
    /// file of $GITHUB_STEP_SUMMARY is appended to.
    #[arg(long, value_name = "FORM=FILE", value_parser = destination)]
    write: Vec<(Form, PathBuf)>,
}

/// Forms of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Aligned columns.
    Text,
    /// A table for a step summary or a comment, under 1 MiB.
    Markdown,
    /// GitHub annotations, at most 10.
    Github,
    /// JUnit XML: one test case per check.
    Junit,
    /// One JSON document.
    Json,
    /// A badge (shields.io endpoint).
    Badge,
}

fn destination(text: &str) -> Result<(Form, PathBuf), String> {
    let Some((form, path)) = text.split_once('=') else {
        return Err("expected FORM=FILE, such as markdown=summary.md".into());
    };
    Ok((Form::from_str(form, true)?, PathBuf::from(path)))
}

/// Read where no `--config` is given.
const CONFIG: &str = "moescope.toml";

impl Gate {
    pub(crate) fn execute(self) -> anyhow::Result<ExitCode> {
        // Files are read in no time: there Ctrl-C ends the program at once.
        let interrupt = self.run.as_ref().map(|_| Interrupt::listen(Some(STOPPING))).transpose()?;
        let verdict = match self.judge(interrupt.as_ref()) {
            Ok(verdict) => verdict,
            Err(error) => return self.fail(error, interrupt.as_ref()),
        };
        for (form, path) in &self.write {
            write(path, &form.of(&verdict)?, *form == Form::Markdown)?;
        }
        ui::print(&self.format.of(&verdict)?)?;
        Ok(ExitCode::from(u8::from(verdict.regressed)))
    }

    /// Says in every form that was asked for that nothing was compared: what stands there of an earlier verdict
    /// must not be taken for this one.
    fn fail(
        &self,
        error: anyhow::Error,
        interrupt: Option<&Interrupt>,
    ) -> anyhow::Result<ExitCode> {
        let said = ui::error_text(&error);
        for (form, path) in &self.write {
            let written =
                form.of_error(&said).and_then(|text| write(path, &text, *form == Form::Markdown));
            if let Err(problem) = written {
                ui::note(format!("{problem:#}"));
            }
        }
        // As text it goes to stderr, as every error does.
        if self.format != Form::Text {
            ui::print(&self.format.of_error(&said)?)?;
        }
        match interrupt.filter(|interrupt| interrupt.is_asked()) {
            Some(interrupt) => {
                ui::print_error(&error);
                Ok(interrupt.exit_code())
            }
            None => Err(error),
        }
    }

    fn judge(&self, interrupt: Option<&Interrupt>) -> anyhow::Result<Verdict> {
        let default = Path::new(CONFIG);
        let mut options = match &self.config {
            Some(path) => GateOptions::read(path)?,
            None if default.is_file() => GateOptions::read(default)?,
            None => GateOptions::default(),
        };
        if let Some(pairs) = self.pairs {
            options.pairs = usize::from(pairs);
        }
        if let Some(pairs) = self.max_pairs {
            options.max_pairs = usize::from(pairs);
        }
        let across = Across { devices: self.across_devices, models: self.across_models };
        Ok(match (&self.base, &self.new, &self.run, &self.vs) {
            (Some(base), Some(new), ..) => {
                let retry = match self.retry.as_deref() {
                    Some([base, new]) => Some((evidence(base)?, evidence(new)?)),
                    _ => None,
                };
                let retry = retry.as_ref().map(|(base, new)| (base, new));
                judge(&evidence(base)?, &evidence(new)?, retry, &options, across)?
            }
            (.., Some(base), Some(new)) => {
                let commands = pairs::Commands { base, new, interrupt };
                let measure = |look, count| match look {
                    Look::Second if self.no_retry => Ok(None),
                    _ => commands.run(count, look).map(Some),
                };
                judge_pairs::<anyhow::Error>(measure, &options, across)?
            }
            // The arguments require one pair or the other.
            _ => bail!("give BASE and NEW, or --run and --vs"),
        })
    }
}

impl Form {
    fn of(self, verdict: &Verdict) -> anyhow::Result<String> {
        Ok(match self {
            Form::Text => text::render(verdict),
            Form::Markdown => markdown::render(verdict),
            Form::Github => github::render(verdict),
            Form::Junit => junit::render(verdict)?,
            Form::Json => serde_json::to_string_pretty(verdict)? + "\n",
            Form::Badge => badge::render(verdict)?,
        })
    }

    fn of_error(self, said: &str) -> anyhow::Result<String> {
        Ok(match self {
            Form::Text => error::text(said),
            Form::Markdown => error::markdown(said),
            Form::Github => github::error(said),
            Form::Junit => junit::error(said)?,
            Form::Json => error::json(said)?,
            Form::Badge => badge::error()?,
        })
    }
}

/// A run directory, or a bench result.
pub(crate) fn evidence(path: &Path) -> anyhow::Result<Evidence> {
    let name = path.display().to_string();
    if path.is_dir() {
        return Ok(Evidence::of_run(&name, &Run::open(path)?)?);
    }
    Ok(Evidence::of_bench(&name, &BenchResult::read(path)?)?)
}

fn write(path: &Path, text: &str, markdown: bool) -> anyhow::Result<()> {
    // A step summary is one file for all commands of a step.
    let summary =
        std::env::var_os("GITHUB_STEP_SUMMARY").is_some_and(|file| file == path.as_os_str());
    let mut file = std::fs::OpenOptions::new();
    file.write(true).create(true);
    match markdown && summary {
        true => file.append(true),
        false => file.truncate(true),
    };
    let written = file.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write {}", path.display()))
}
