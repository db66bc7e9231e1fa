//! The tokens of a bench: bundled or own prompts, random ids, a recorded run.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use moescope_model::{Checkpoint, ModelSpec};
use moescope_record::{
    PromptInput, RecordError, Text,
    bench::{BenchError, Workload},
    prompts,
};
use moescope_trace::Run;

use super::Bench;
use crate::{commands::demo, model::ModelArgs, ui};

/// What is read.
#[derive(Args)]
pub(crate) struct WorkloadArgs {
    /// Which tokens are processed. Routing depends on them, so these do not compare with each other: text is the
    /// bundled prompts (or --prompts), random draws ids uniformly, replay takes the tokens and the experts of a
    /// recorded run, named after it. By default text, or random where random weights come without a tokenizer.
    #[arg(long, value_enum, value_name = "text|random|replay RUN")]
    workload: Option<Kind>,
    /// The run that --workload replay replays.
    #[arg(value_name = "RUN")]
    run: Option<PathBuf>,
    /// Prompts of the text workload, one after the other: a .jsonl or .txt file, a directory of them, or - for JSON
    /// lines on stdin.
    #[arg(long, value_name = "PATH|-")]
    prompts: Option<PathBuf>,
}

/// Where tokens come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Prompts.
    Text,
    /// Uniform ids.
    Random,
    /// A recorded run.
    Replay,
}

impl WorkloadArgs {
    /// `--workload replay RUN MODEL` gives the run first: it is told by its manifest.
    pub(super) fn put_in_order(&mut self, model: &mut ModelArgs) {
        let is_run = |path: &Path| path.join("manifest.json").is_file();
        if let Some(run) = &mut self.run
            && is_run(&model.model)
            && !is_run(run)
        {
            std::mem::swap(run, &mut model.model);
        }
    }

    pub(super) fn open(
        &self,
        checkpoint: &Checkpoint,
        spec: &ModelSpec,
        name: &str,
        Bench { model, seed, .. }: &Bench,
    ) -> anyhow::Result<Workload> {
        let tokenizer = model.tokenizer.as_deref();
        self.check(tokenizer)?;
        match self.workload {
            Some(Kind::Random) => Ok(Workload::random(spec, *seed)),
            Some(Kind::Replay) => {
                // Checked: there is one.
                let run = self.run.as_deref().unwrap_or(Path::new(""));
                Ok(Workload::replay(&Run::open(run)?, spec)?)
            }
            explicit => match self.text(checkpoint, spec, name, tokenizer) {
                Err(error)
                    if explicit.is_none() && checkpoint.is_random() && lacks_tokenizer(&error) =>
                {
                    ui::note(
                        "no tokenizer: measuring --workload random (--tokenizer names one for text)",
                    );
                    Ok(Workload::random(spec, *seed))
                }
                text => text,
            },
        }
    }

    /// Options that say nothing about the workload that was chosen are a mistake.
    fn check(&self, tokenizer: Option<&Path>) -> anyhow::Result<()> {
        let replay = self.workload == Some(Kind::Replay);
        match &self.run {
            None if replay => {
                bail!("--workload replay needs the run to replay: --workload replay RUN")
            }
            Some(run) if !replay => bail!(
                "{}: a second argument is the run of --workload replay; without it, one MODEL is measured",
                run.display()
            ),
            _ => {}
        }
        let text = matches!(self.workload, None | Some(Kind::Text));
        let given = [("--prompts", self.prompts.is_some()), ("--tokenizer", tokenizer.is_some())];
        match given.into_iter().find(|(_, given)| *given && !text) {
            Some((option, _)) => bail!("{option} belongs to --workload text"),
            None => Ok(()),
        }
    }

    fn text(
        &self,
        checkpoint: &Checkpoint,
        spec: &ModelSpec,
        name: &str,
        tokenizer: Option<&Path>,
    ) -> anyhow::Result<Workload> {
        let text = match tokenizer {
            Some(path) => Text::open_other(path)?,
            None => Text::open(checkpoint.dir())?,
        };
        let source = match &self.prompts {
            Some(path) => path.clone(),
            None => demo::datasets()
                .context("the bundled prompts; give --prompts, or measure --workload random")?
                .join("prompts"),
        };
        let mut tokens = Vec::new();
        for prompt in prompts::read(&source)? {
            if !text.has_tokenizer() && !matches!(prompt.input, PromptInput::TokenIds(_)) {
                return Err(
                    RecordError::from(BenchError::NoTokenizer { model: name.to_owned() }).into()
                );
            }
            tokens.extend(match &prompt.input {
                PromptInput::Text(string) => text.encode(string)?,
                PromptInput::TokenIds(ids) => ids.clone(),
                PromptInput::Messages(messages) => text.encode_messages(messages)?,
            });
        }
        Ok(Workload::text(tokens, spec)?)
    }
}

fn lacks_tokenizer(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(RecordError::Bench(BenchError::NoTokenizer { .. })))
}
