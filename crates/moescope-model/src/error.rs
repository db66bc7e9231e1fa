//! What can go wrong between a path on the command line and a model that runs.

use std::path::PathBuf;

/// An error of model loading or of the inputs to a forward pass.
///
/// Every message names the file, tensor or option, what was expected, what was found and, where
/// there is one, the way out.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The MODEL argument names nothing.
    #[error("{model}: {reason}")]
    NoModel {
        /// As given.
        model: String,
        /// What was tried, or what is wrong with it.
        reason: String,
    },
    /// A repository of the Hub can't be had.
    #[error(transparent)]
    Hub(crate::hub::HubError),
    /// A file or directory is not there.
    #[error("{path}: {what} not found{hint}", path = path.display())]
    NotFound {
        /// The path looked at.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What to do, starting with a separator, or nothing.
        hint: String,
    },
    /// A file can't be read.
    #[error("{path}: cannot read: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A JSON file is malformed.
    #[error("{path}: not valid JSON: {source}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// A safetensors file is malformed or cut short.
    #[error(
        "{path}: not a whole safetensors file ({reason}); it may be truncated: download it again",
        path = path.display()
    )]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        reason: String,
    },
    /// The checkpoint is in a format that is not read.
    #[error("{path}: {format} checkpoints are not supported; expected safetensors", path = path.display())]
    Format {
        /// The file or directory.
        path: PathBuf,
        /// The format recognised.
        format: &'static str,
    },
    /// The weights are quantised in a format that is not read.
    #[error(
        "{path}: weights quantised as {format} ({seen}) are not read; use the model's bf16, f16 or f32 \
         safetensors, or FP8 in blocks or MXFP4 as first published",
        path = path.display()
    )]
    Quantised {
        /// The config or the file.
        path: PathBuf,
        /// The format recognised.
        format: String,
        /// What gave it away.
        seen: String,
    },
    /// A shard named in the index is not there.
    #[error("{index}: names the shard {shard:?}, which is not in {dir}", index = index.display(), dir = dir.display())]
    MissingShard {
        /// The index file.
        index: PathBuf,
        /// The shard's name.
        shard: String,
        /// The model directory.
        dir: PathBuf,
    },
    /// A shard name leaves the model directory.
    #[error("{index}: the shard {shard:?} points outside the model directory; refused", index = index.display())]
    ShardOutside {
        /// The index file.
        index: PathBuf,
        /// The shard's name.
        shard: String,
    },
    /// The index and the shards disagree.
    #[error("{index}: says {tensor:?} is in {shard:?}, but that file does not hold it", index = index.display())]
    IndexMismatch {
        /// The index file.
        index: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shard.
        shard: String,
    },
    /// The architecture has no family.
    #[error("{path}: unknown architecture {found}; known: {known}", path = path.display())]
    UnknownArchitecture {
        /// `config.json`.
        path: PathBuf,
        /// What the config names.
        found: String,
        /// The architectures of the registry.
        known: String,
    },
    /// A config key is missing or has the wrong type.
    #[error("{path}: `{key}`: expected {expected}, found {found}", path = path.display())]
    Config {
        /// `config.json`.
        path: PathBuf,
        /// The key, with the section it is in.
        key: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A config switch this family does not implement.
    #[error(
        "{path}: `{key}` = {value} is not implemented for {family}; running without it would compute a different model",
        path = path.display()
    )]
    Unsupported {
        /// `config.json`.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// The family.
        family: &'static str,
    },
    /// A tensor the model needs is not in the checkpoint.
    #[error("{path}: tensor {name:?} is missing (expected shape {shape:?})", path = path.display())]
    MissingTensor {
        /// Checkpoint.
        path: PathBuf,
        /// Tensor name.
        name: String,
        /// Shape expected.
        shape: Vec<usize>,
    },
    /// The checkpoint holds tensors the model has no place for.
    #[error("{path}: unexpected tensor {name:?} with shape {shape:?}{more}", path = path.display())]
    UnexpectedTensor {
        /// File.
        path: PathBuf,
        /// First such tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// "and N more", or nothing.
        more: String,
    },
    /// A tensor has the wrong shape.
    #[error("{path}: tensor {name:?}: expected shape {expected:?}, found {found:?}", path = path.display())]
    Shape {
        /// File.
        path: PathBuf,
        /// Tensor name.
        name: String,
        /// Expected.
        expected: Vec<usize>,
        /// Found.
        found: Vec<usize>,
    },
    /// A tensor has a type that is not read.
    #[error(
        "{path}: tensor {name:?}: expected F32, F16, BF16 or F8_E4M3 with block scales, found {found}",
        path = path.display()
    )]
    TensorType {
        /// File.
        path: PathBuf,
        /// Tensor name.
        name: String,
        /// Type found.
        found: String,
    },
    /// A weight is NaN or infinite.
    #[error("{path}: tensor {name:?}: element {index} is {value}; the checkpoint is damaged", path = path.display())]
    NotFinite {
        /// File.
        path: PathBuf,
        /// Tensor name.
        name: String,
        /// Flat index of the first such element.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A weight is finite, but not in the compute type.
    #[error(
        "{path}: tensor {name:?}: element {index} does not fit {dtype}; use --dtype bf16 or f32",
        path = path.display()
    )]
    OutOfRange {
        /// File.
        path: PathBuf,
        /// Tensor name.
        name: String,
        /// Flat index of the first such element.
        index: usize,
        /// Type it does not fit.
        dtype: &'static str,
    },
    /// A compute type the device can't use.
    #[error("--dtype {dtype}: {device} does not support it; use {instead}")]
    DType {
        /// Type asked for.
        dtype: String,
        /// The device.
        device: String,
        /// A type that works.
        instead: &'static str,
    },
    /// A device that is not there or can't be opened.
    #[error("--device {asked}: {reason}")]
    Device {
        /// As asked for.
        asked: String,
        /// Why not, and what is there.
        reason: String,
    },
    /// A token id beyond the vocabulary.
    #[error("token id {id} at position {position} is beyond the vocabulary of {vocab} tokens")]
    TokenId {
        /// The id.
        id: u32,
        /// Its position in the prompt.
        position: usize,
        /// Vocabulary size.
        vocab: usize,
    },
    /// A number of layers that a model can't be cut to.
    #[error("--layers {layers}: {reason}")]
    Layers {
        /// Layers asked for.
        layers: usize,
        /// Why not.
        reason: String,
    },
    /// Experts that can't be forced upon a pass.
    #[error("experts forced in layer {layer}: {reason}")]
    Forced {
        /// The layer.
        layer: u16,
        /// What is wrong with them.
        reason: String,
    },
    /// The model does not fit the memory of the device.
    #[error(transparent)]
    DoesNotFit(Box<crate::capacity::DoesNotFit>),
    /// The model needs a tensor that the device can't bind, and that can't be cut.
    #[error(
        "{what} take {needed} in one tensor, and the device binds at most {limit}; they can't be cut: {instead}",
        needed = crate::capacity::bytes(*bytes),
        limit = crate::capacity::bytes(*limit)
    )]
    TensorTooLarge {
        /// What it holds.
        what: String,
        /// Bytes it takes.
        bytes: u64,
        /// Bytes the device takes.
        limit: u64,
        /// What would fit.
        instead: String,
    },
    /// More tokens than the context holds.
    #[error("{tokens} tokens do not fit the context of {context}")]
    ContextLength {
        /// Tokens needed.
        tokens: usize,
        /// Context length.
        context: usize,
    },
}

/// Result of this crate's fallible functions.
pub type Result<T, E = ModelError> = std::result::Result<T, E>;
