//! Model families: one file (or folder) each, one line in [`FAMILIES`].

pub mod deepseek_v3;
pub mod gemma3;
pub mod gemma4;
pub mod glm4_moe;
pub mod gpt_oss;
pub mod mixtral;
pub mod olmoe;
pub mod qwen3_moe;

use crate::{
    checkpoint::{Checkpoint, WeightsSummary},
    error::{ModelError, Result},
    model::{LoadOptions, MoeModel},
    spec::ModelSpec,
};

/// What a family's loader returns.
pub type Loaded = (Box<dyn MoeModel>, WeightsSummary);

/// A family of models that share an architecture.
pub struct Family {
    /// Name in messages.
    pub name: &'static str,
    /// Values of `architectures` in `config.json` it answers to.
    pub architectures: &'static [&'static str],
    /// Reads the config alone.
    pub describe: fn(&Checkpoint) -> Result<ModelSpec>,
    /// Reads config and weights.
    pub load: fn(&Checkpoint, &LoadOptions<'_>) -> Result<Loaded>,
}

/// Every family there is.
pub const FAMILIES: &[Family] = &[
    deepseek_v3::FAMILY,
    gemma3::FAMILY,
    gemma4::FAMILY,
    glm4_moe::FAMILY,
    gpt_oss::FAMILY,
    mixtral::FAMILY,
    olmoe::FAMILY,
    qwen3_moe::FAMILY,
];

/// The family of a checkpoint.
///
/// # Errors
///
/// [`ModelError::UnknownArchitecture`] with the known ones.
pub fn family_of(checkpoint: &Checkpoint) -> Result<&'static Family> {
    let architecture = checkpoint.architecture()?;
    FAMILIES.iter().find(|f| f.architectures.contains(&architecture)).ok_or_else(|| {
        let known: Vec<&str> = FAMILIES.iter().flat_map(|f| f.architectures).copied().collect();
        ModelError::UnknownArchitecture {
            path: checkpoint.config_path().to_owned(),
            found: format!("{architecture:?}"),
            known: known.join(", "),
        }
    })
}
