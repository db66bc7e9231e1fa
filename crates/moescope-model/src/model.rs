//! A model that runs, whatever its family.

use burn::tensor::{Device, Int, Tensor};

use crate::{
    cache::KvCache,
    capacity::{Capacity, Demand, Room},
    checkpoint::{Checkpoint, LoadProgress, WeightsSummary},
    dtype::DType,
    error::{ModelError, Result},
    families::family_of,
    observer::Observer,
    ops::{experts::MoeImpl, on_cpu},
    spec::{ModelSpec, Part},
};

/// Which positions get logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitsFor {
    /// Every new token: `[B * S, V]`.
    All,
    /// The last new token of each sequence: `[B, V]`.
    Last,
}

/// A decoder with its weights on a device.
pub trait MoeModel: Send + Sync {
    /// What the config says.
    fn spec(&self) -> &ModelSpec;

    /// Where the weights are.
    fn device(&self) -> &Device;

    /// Processes `ids [B, S]`, which follow the tokens in `cache`, and returns logits (f32).
    ///
    /// Nothing is read back from the device; routing goes to `observer` as device tensors.
    ///
    /// # Errors
    ///
    /// [`ModelError::ContextLength`] if the cache has no room for S more tokens, [`ModelError::Forced`] if
    /// the observer forces experts of another layer or number of tokens; clear the cache then. Ids must be
    /// below the vocabulary: see [`check_ids`].
    fn forward(
        &self,
        ids: Tensor<2, Int>,
        cache: &mut KvCache,
        observer: &mut dyn Observer,
        logits: LogitsFor,
    ) -> Result<Tensor<2>>;

    /// Logits of rows that have been through the final norm (see [`Observer::step_done`]):
    /// `[N, H] -> [N, V]`.
    fn head(&self, normed: Tensor<2>) -> Tensor<2>;
}

/// How to load a model.
#[derive(Clone, Copy)]
pub struct LoadOptions<'a> {
    /// Where to.
    pub device: &'a Device,
    /// Type of the weights there.
    pub dtype: DType,
    /// Implementation of the experts layers.
    pub moe_impl: MoeImpl,
    /// Told after every tensor: bytes read and to read.
    pub progress: LoadProgress<'a>,
}

/// Loads the model of a checkpoint, if the device has room for its weights and one token as far as the device
/// tells ([`Capacity::of`]); a GPU that shares the host's memory is known through its adapter alone
/// ([`Capacity::of_adapter`] and [`load_within`]).
///
/// # Errors
///
/// As [`load_within`].
pub fn load(
    checkpoint: &Checkpoint,
    options: &LoadOptions<'_>,
) -> Result<(Box<dyn MoeModel>, WeightsSummary)> {
    load_within(checkpoint, options, &Demand::default(), &Capacity::of(options.device))
}

/// Loads the model of a checkpoint, if what `demand` asks for fits `capacity`. That is known before any
/// tensor is read.
///
/// # Errors
///
/// The architecture is unknown, a config switch is not implemented, the device can't compute in
/// `dtype`, the model does not fit ([`ModelError::DoesNotFit`]) or needs a tensor larger than the device takes
/// ([`ModelError::TensorTooLarge`]), or the weights are not exactly those the config asks for.
pub fn load_within(
    checkpoint: &Checkpoint,
    options: &LoadOptions<'_>,
    demand: &Demand,
    capacity: &Capacity,
) -> Result<(Box<dyn MoeModel>, WeightsSummary)> {
    check(checkpoint, options.device, options.dtype, demand, capacity)?;
    (family_of(checkpoint)?.load)(checkpoint, options)
}

/// Refuses what [`load_within`] refuses before it reads any tensor; a checkpoint without its weights will do.
///
/// # Errors
///
/// As [`load_within`], but for those of weights.
pub fn check(
    checkpoint: &Checkpoint,
    device: &Device,
    dtype: DType,
    demand: &Demand,
    capacity: &Capacity,
) -> Result<()> {
    crate::device::check_dtype(device, dtype)?;
    check_cut(checkpoint)?;
    let spec = describe(checkpoint)?;
    // A config that asks for far more than the files hold is wrong about a shape, which loading names.
    if checkpoint.stored_parameters().is_none_or(|stored| spec.total_parameters() / 2 < stored) {
        Room { dtype, demand: *demand, on_gpu: !on_cpu(device) }.check(&spec, capacity)?;
    }
    Ok(())
}

/// Refuses to cut a checkpoint whose layers share a tensor.
fn check_cut(checkpoint: &Checkpoint) -> Result<()> {
    let Some(layers) = checkpoint.layers_kept().filter(|_| !checkpoint.is_random()) else {
        return Ok(());
    };
    let spec = describe(checkpoint)?;
    match spec.by_part().iter().any(|(part, ..)| *part == Part::PerLayerEmbedding) {
        false => Ok(()),
        true => Err(ModelError::Layers {
            layers: layers.kept,
            reason: "its per-layer embeddings lie in one table for all layers; only random weights can be \
                     cut (--random-weights)"
                .into(),
        }),
    }
}

/// What the config of a checkpoint says, without its weights.
///
/// # Errors
///
/// The architecture is unknown or a config switch is not implemented.
pub fn describe(checkpoint: &Checkpoint) -> Result<ModelSpec> {
    (family_of(checkpoint)?.describe)(checkpoint)
}

/// Checks token ids against a vocabulary.
///
/// # Errors
///
/// [`ModelError::TokenId`] with the first id that is too large.
pub fn check_ids(ids: &[u32], vocab: usize) -> Result<()> {
    match ids.iter().position(|&id| id as usize >= vocab) {
        None => Ok(()),
        Some(position) => Err(ModelError::TokenId { id: ids[position], position, vocab }),
    }
}
