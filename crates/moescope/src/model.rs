//! The MODEL argument: which model, where it comes from, with which weights, and how much of it.

use std::{
    cell::OnceCell,
    path::{Path, PathBuf},
};

use anyhow::bail;
use clap::Args;
use moescope_model::{Checkpoint, HubId, HubOptions, HubProgress, Local, Need, Source, catalog};

use moescope_record::Text;

use crate::ui::{self, Unit};

/// Which model, and where it comes from.
#[derive(Args, Clone)]
pub(crate) struct ModelArgs {
    /// Model directory, a file in it, an id of the Hugging Face Hub (org/name or org/name@revision), or a name
    /// of the catalog, such as gemma-4-26b-a4b. What exists on disk comes first.
    pub(crate) model: PathBuf,
    /// Branch, tag or commit of a model of the Hub; main by default.
    #[arg(long, value_name = "REVISION")]
    pub(crate) revision: Option<String>,
    /// Request nothing: models of the Hub come from the cache (as with HF_HUB_OFFLINE=1).
    #[arg(long)]
    pub(crate) offline: bool,
    /// Draw the weights at random instead of reading any: speed and memory mean something, routing (nearly
    /// even) and text do not. MODEL may then be a name of the catalog or a config.json.
    #[arg(long)]
    pub(crate) random_weights: bool,
    /// Tokenizer for a model that comes without one: a tokenizer.json or a directory with one; a chat template
    /// is looked for beside it.
    #[arg(long, value_name = "PATH")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Keep only the first N layers, at true width.
    #[arg(long, value_name = "N")]
    pub(crate) layers: Option<usize>,
}

/// A checkpoint and where it came from.
pub(crate) struct Opened {
    pub(crate) checkpoint: Checkpoint,
    /// For the manifest: the argument, or `org/name@commit`.
    pub(crate) source: String,
}

impl ModelArgs {
    /// A whole model on disk.
    pub(crate) fn on_disk(model: &Path) -> Self {
        ModelArgs {
            model: model.to_owned(),
            revision: None,
            offline: false,
            random_weights: false,
            tokenizer: None,
            layers: None,
        }
    }

    /// The model with its weights: read, fetched where it is on the Hub, or drawn from `seed`.
    ///
    /// Of a model of the Hub, `check` sees the config before weights are fetched.
    pub(crate) fn open(
        &self,
        seed: u64,
        check: impl Fn(&Checkpoint) -> moescope_model::Result<()>,
    ) -> anyhow::Result<Opened> {
        if self.random_weights {
            let mut opened = self.describe()?;
            opened.checkpoint.randomise(seed);
            return Ok(opened);
        }
        let opened = match self.source(&|text| ui::note(text))? {
            Source::Catalog(name) => match catalog::find(name)?.and_then(|entry| entry.hub) {
                Some(hub) => bail!(
                    "{name}: the catalog holds shapes, not weights; those are {hub}. --random-weights runs \
                     the shapes"
                ),
                None => bail!(
                    "{name}: the catalog holds shapes, and nobody has published weights; \
                     --random-weights runs the shapes"
                ),
            },
            Source::Path(path) => opened(Local::path(&path), Checkpoint::open),
            Source::Hub(id) => {
                let described = opened(self.fetch(&id, Need::Config)?, Checkpoint::open_config)?;
                let described = self.cut(described)?;
                check(&described.checkpoint)?;
                // The same commit, even if the branch moves on meanwhile.
                let commit = described.source.parse().map_err(anyhow::Error::msg)?;
                opened(self.fetch(&commit, Need::All)?, Checkpoint::open)
            }
        };
        self.cut(opened?)
    }

    /// What is known of the model without its weights.
    pub(crate) fn describe(&self) -> anyhow::Result<Opened> {
        let opened = match self.source(&|text| ui::note(text))? {
            Source::Catalog(name) => match catalog::find(name)? {
                Some(entry) => Ok(Opened {
                    checkpoint: Checkpoint::from_catalog(&entry)?,
                    source: name.to_owned(),
                }),
                None => bail!("{name}: not in the catalog"),
            },
            Source::Path(path) => opened(Local::path(&path), Checkpoint::open_config),
            Source::Hub(id) => opened(self.fetch(&id, Need::Config)?, Checkpoint::open_config),
        };
        self.cut(opened?)
    }

    /// Its entry in the catalog, if it is a name of one.
    pub(crate) fn entry(&self) -> anyhow::Result<Option<catalog::Entry>> {
        Ok(match self.source(&|_| {})? {
            Source::Catalog(name) => catalog::find(name)?,
            Source::Path(_) | Source::Hub(_) => None,
        })
    }

    fn cut(&self, mut opened: Opened) -> anyhow::Result<Opened> {
        if let Some(layers) = self.layers {
            opened.checkpoint.keep_layers(layers)?;
        }
        Ok(opened)
    }

    /// Name for tables and legends.
    pub(crate) fn name(&self) -> anyhow::Result<String> {
        Ok(match self.source(&|_| {})? {
            Source::Path(path) => Local::path(&path).name,
            Source::Catalog(name) => name.to_owned(),
            Source::Hub(id) => id.name().to_owned(),
        })
    }

    /// The tokenizer: the one asked for, the model's own, or what stands in for it where weights are random.
    pub(crate) fn text(&self, checkpoint: &Checkpoint) -> anyhow::Result<Text> {
        if let Some(path) = &self.tokenizer {
            return Ok(Text::open_other(path)?);
        }
        let text = Text::open(checkpoint.dir())?;
        if text.has_tokenizer() || !checkpoint.is_random() {
            return Ok(text);
        }
        ui::note(
            "no tokenizer: the bytes of a text are its token ids (for speed that makes no difference)",
        );
        Ok(Text::bytes(checkpoint.dir()))
    }

    fn source(&self, note: &dyn Fn(&str)) -> anyhow::Result<Source> {
        match self.model.to_str() {
            Some(model) => Ok(Source::of(model, self.revision.as_deref(), note)?),
            // No other kind of model has such a name.
            None => Ok(Source::Path(self.model.clone())),
        }
    }

    fn fetch(&self, id: &HubId, need: Need) -> anyhow::Result<Local> {
        let bar = OnceCell::new();
        let progress = |p: HubProgress<'_>| {
            let bar = bar.get_or_init(|| {
                ui::note(format!("fetching {id}"));
                ui::progress(p.total, p.file, Unit::Bytes)
            });
            bar.set_length(p.total);
            bar.set_position(p.done);
            bar.set_message(moescope_report::sanitize(p.file).into_owned());
        };
        let note = |text: &str| ui::note(text);
        let mut options = HubOptions::from_env(&progress, &note);
        options.offline |= self.offline;
        let local = Local::hub(id, need, &options);
        if let Some(bar) = bar.get() {
            bar.finish_and_clear();
        }
        Ok(local?)
    }
}

fn opened(
    local: Local,
    open: impl Fn(&Path) -> moescope_model::Result<Checkpoint>,
) -> anyhow::Result<Opened> {
    Ok(Opened { checkpoint: open(&local.path)?, source: local.source })
}

/// What sets the numbers of this model apart from those of a published one: for notes and tables.
pub(crate) fn labels(checkpoint: &Checkpoint) -> Vec<String> {
    let random = checkpoint.is_random().then(|| "random weights".to_owned());
    let cut = checkpoint.layers_kept().map(|l| format!("first {} of {} layers", l.kept, l.of));
    let rumour = checkpoint.is_rumour().then(|| "rumoured shapes".to_owned());
    [random, cut, rumour].into_iter().flatten().collect()
}
