//! `moescope synthetic`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use moescope_analysis::synthetic;

use crate::ui;

/// Make up a run of any size, to try analyses and to time them: Zipf popularity, experts of each domain,
/// tokens that keep experts of the token before. It is labelled as having random weights.
#[derive(Args)]
pub(crate) struct Synthetic {
    /// Run directory to write, which must not be there yet.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Routing decisions, rounded up to whole sequences: choices of one expert for one token at one layer.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    decisions: usize,
    /// MoE layers.
    #[arg(long, value_name = "L", default_value_t = 48)]
    layers: u16,
    /// Experts per layer.
    #[arg(long, value_name = "E", default_value_t = 128)]
    experts: u16,
    /// Experts per token.
    #[arg(long, value_name = "K", default_value_t = 8)]
    top_k: u16,
    /// Domains.
    #[arg(long, value_name = "N", default_value_t = 8)]
    domains: usize,
    /// Tokens of each prompt.
    #[arg(long, value_name = "N", default_value_t = 384)]
    prompt: usize,
    /// Tokens generated after each prompt.
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_tokens: usize,
    /// Exponent of the popularity of experts; 0 is even.
    #[arg(long, value_name = "S", default_value_t = 0.6, value_parser = exponent)]
    zipf: f64,
    /// Norms of the experts' outputs too.
    #[arg(long)]
    saliency: bool,
    /// Expert ids alone: no weights, entropies, margins and log-probabilities.
    #[arg(long, conflicts_with = "saliency")]
    ids_only: bool,
    /// Seed of everything.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Domains a run can tell apart.
const MOST_DOMAINS: usize = 1 << 16;

impl Synthetic {
    pub(crate) fn execute(self) -> anyhow::Result<()> {
        if self.domains > MOST_DOMAINS {
            bail!("--domains {}: expected at most {MOST_DOMAINS}", self.domains);
        }
        let round = [self.layers.into(), self.top_k.into(), self.domains]
            .iter()
            .try_fold(self.prompt.checked_add(self.max_tokens), |n, by| Some(n?.checked_mul(*by)))
            .flatten();
        let Some(round) = round else {
            bail!("more decisions in one sequence of every domain than can be counted");
        };
        if round == 0 || self.experts == 0 {
            bail!("expected at least one domain, layer, expert, expert per token and token");
        }
        if self.output.exists() {
            bail!("{} is there already: choose another directory", self.output.display());
        }
        let made = synthetic::Synthetic {
            domains: self.domains,
            sequences: self.decisions.div_ceil(round).max(1),
            prompt: self.prompt,
            generated: self.max_tokens,
            layers: self.layers,
            experts: usize::from(self.experts),
            top_k: usize::from(self.top_k),
            zipf: self.zipf,
            weights: !self.ids_only,
            output_norms: self.saliency,
            seed: self.seed,
            ..synthetic::Synthetic::default()
        };
        made.write(&self.output)?;
        ui::note(format!(
            "{}: {} decisions, {} tokens in {} sequences",
            self.output.display(),
            ui::count(made.decisions() as u64),
            ui::count(made.tokens() as u64),
            made.domains * made.sequences
        ));
        Ok(())
    }
}

fn exponent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if (0.0..=10.0).contains(&x) => Ok(x),
        _ => Err("expected a number from 0 to 10".into()),
    }
}
