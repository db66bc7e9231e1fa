//! A checkpoint on disk: `config.json` and safetensors, whole or in shards, as Hugging Face lays it out.
//!
//! Opening reads the headers of the files; tensors are read one at a time by [`Loader`].

mod cut;
mod formats;
mod fp8;
mod loader;
mod mxfp4;
mod random;
mod shards;
pub(crate) mod values;

use std::path::{Path, PathBuf};

pub use cut::LayersKept;
pub use formats::Quantisation;
pub(crate) use formats::format_of_extension;
pub use loader::{LoadProgress, Loader, WeightsSummary};
use serde_json::{Map, Value};
pub(crate) use shards::{INDEX, SINGLE, is_plain_name, shard_names};

use self::{random::Random, shards::Shard};
use crate::{
    error::{ModelError, Result},
    footprint::Stored,
};

/// A checkpoint whose config is parsed and whose shards are open, but of which no weight is read.
pub struct Checkpoint {
    dir: PathBuf,
    config_path: PathBuf,
    config_bytes: Vec<u8>,
    config: Map<String, Value>,
    quantisation: Option<Quantisation>,
    shards: Vec<Shard>,
    /// Draws the weights instead of reading them.
    random: Option<Random>,
    layers: Option<LayersKept>,
    rumour: bool,
    /// Bytes a tensor on the device may take at most.
    tensor_limit: Option<u64>,
}

impl Checkpoint {
    /// Opens a model directory, or the directory around a `.safetensors` file: that file alone, or all shards
    /// where it is one of several or their index.
    ///
    /// # Errors
    ///
    /// The path or `config.json` is missing or malformed, a shard is missing, cut short, or points
    /// outside the directory, or the checkpoint is in a format that is not read.
    pub fn open(path: &Path) -> Result<Self> {
        let mut checkpoint = Self::open_config(path)?;
        checkpoint.shards = shards::open(path, &checkpoint.dir)?;
        formats::check_tensors(&checkpoint.shards)?;
        Ok(checkpoint)
    }

    /// Opens the config alone: enough to tell parameters, shapes and bytes.
    ///
    /// # Errors
    ///
    /// The path or `config.json` is missing or malformed.
    pub fn open_config(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Err(ModelError::NotFound {
                path: path.to_owned(),
                what: "model",
                hint: "; expected a directory with config.json and model.safetensors".into(),
            });
        }
        let is_json = path.is_file() && path.extension().is_some_and(|e| e == "json");
        let is_config = is_json && !shards::is_index(path);
        if let Some(format) = formats::other_format(path).filter(|_| path.is_file() && !is_json) {
            return Err(ModelError::Format { path: path.to_owned(), format });
        }
        let dir = match path.is_dir() {
            true => path.to_owned(),
            false => path.parent().map_or_else(PathBuf::new, Path::to_owned),
        };
        let config_path = if is_config { path.to_owned() } else { dir.join("config.json") };
        if let Some(format) = formats::other_format_in(&dir).filter(|_| !config_path.exists()) {
            return Err(ModelError::Format { path: path.to_owned(), format });
        }
        let config_bytes = read(&config_path, "config.json")?;
        let mut config = match parse(&config_path, &config_bytes)? {
            Value::Object(map) => map,
            other => {
                return Err(ModelError::Config {
                    path: config_path,
                    key: "config".into(),
                    expected: "an object".into(),
                    found: other.to_string().chars().take(40).collect(),
                });
            }
        };
        let quantisation = formats::take_quantisation(&config_path, &mut config)?;
        Ok(Checkpoint {
            dir,
            config_path,
            config_bytes,
            config,
            quantisation,
            shards: Vec::new(),
            random: None,
            layers: None,
            rumour: false,
            tensor_limit: None,
        })
    }

    /// A model of the catalog: its config, no weights.
    ///
    /// # Errors
    ///
    /// The entry's config can't be written as JSON: impossible in a build whose tests passed.
    pub fn from_catalog(entry: &crate::catalog::Entry) -> Result<Self> {
        let config_path = PathBuf::from(crate::catalog::path(&entry.name));
        let config_bytes = serde_json::to_vec(&entry.config)
            .map_err(|source| ModelError::Json { path: config_path.clone(), source })?;
        let mut config = entry.config.clone();
        let quantisation = formats::take_quantisation(&config_path, &mut config)?;
        Ok(Checkpoint {
            dir: PathBuf::from(&entry.name),
            config_path,
            config_bytes,
            config,
            quantisation,
            shards: Vec::new(),
            random: None,
            layers: None,
            rumour: entry.rumour,
            tensor_limit: None,
        })
    }

    /// Draws the weights at random from `seed` instead of reading any: in no stored format, whatever the config
    /// says of the published ones.
    pub fn randomise(&mut self, seed: u64) {
        self.random = Some(Random { seed });
        self.quantisation = None;
    }

    /// Cuts weights into tensors of at most `bytes` on the device, where the device does not ask for
    /// smaller ones itself.
    pub fn limit_tensors(&mut self, bytes: u64) {
        self.tensor_limit = Some(bytes);
    }

    /// See [`Checkpoint::limit_tensors`].
    pub(crate) fn tensor_limit(&self) -> Option<u64> {
        self.tensor_limit
    }

    /// Parameters in the files, those of other towers and skipped layers included; `None` where there are
    /// no files.
    pub(crate) fn stored_parameters(&self) -> Option<u64> {
        let in_files = |shard: &Shard| -> u64 {
            let tensors = shard.metadata.tensors();
            // A byte holds two 4-bit floats.
            let per_element = |dtype| if dtype == safetensors::Dtype::U8 { 2 } else { 1 };
            let count = tensors.values().map(|info| {
                info.shape.iter().map(|&n| n as u64).product::<u64>() * per_element(info.dtype)
            });
            count.sum()
        };
        let read = !self.shards.is_empty() && !self.is_random();
        read.then(|| self.shards.iter().map(in_files).sum())
    }

    /// Whether the weights are drawn at random.
    pub fn is_random(&self) -> bool {
        self.random.is_some()
    }

    /// Whether the shapes are those of a model that nobody has published.
    pub fn is_rumour(&self) -> bool {
        self.rumour
    }

    /// The model directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the config was read from.
    pub fn config_path(&self) -> &Path {
        &self.config_path
    }

    /// The quantised format of the weights on disk, decoded while loading.
    pub fn quantisation(&self) -> Option<Quantisation> {
        self.quantisation
    }

    /// How the weights lie on disk, as far as the config tells.
    pub fn stored(&self) -> Option<Stored> {
        match self.quantisation {
            Some(Quantisation::Fp8Blocks { .. }) => return Some(Stored::Fp8Blocks),
            Some(Quantisation::Mxfp4) => return Some(Stored::Mxfp4),
            None => {}
        }
        let text = self.config.get("text_config").and_then(Value::as_object);
        let sections = [Some(&self.config), text];
        let named = |key: &str| sections.into_iter().flatten().find_map(|s| s.get(key)?.as_str());
        match named("torch_dtype").or_else(|| named("dtype"))? {
            "float32" => Some(Stored::F32),
            "float16" => Some(Stored::F16),
            "bfloat16" => Some(Stored::Bf16),
            _ => None,
        }
    }

    /// Rows and columns that share a scale where a weight is stored in FP8.
    fn fp8_block(&self) -> [usize; 2] {
        match self.quantisation {
            Some(Quantisation::Fp8Blocks { block }) => block,
            // Not named in the config: the one size in use, which the shape of the scales confirms.
            Some(Quantisation::Mxfp4) | None => [128, 128],
        }
    }

    /// The top level of `config.json`, without what says how weights are quantised: that is honoured here.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// BLAKE3 of `config.json`, in hex.
    pub fn config_hash(&self) -> String {
        blake3::hash(&self.config_bytes).to_hex().to_string()
    }

    /// Tokens that end a generation: `eos_token_id` of `generation_config.json`, else of the config.
    pub fn eos_ids(&self) -> Vec<u32> {
        let ids = |value: &Value| match value {
            Value::Array(list) => {
                list.iter().filter_map(Value::as_u64).map(|id| id as u32).collect()
            }
            other => other.as_u64().map(|id| vec![id as u32]).unwrap_or_default(),
        };
        let generation = std::fs::read(self.dir.join("generation_config.json")).ok();
        let generation = generation.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let sections = [
            generation.as_ref().and_then(|g| g.get("eos_token_id")),
            self.config.get("eos_token_id"),
            self.config.get("text_config").and_then(|text| text.get("eos_token_id")),
        ];
        sections
            .into_iter()
            .flatten()
            .map(ids)
            .find(|ids: &Vec<u32>| !ids.is_empty())
            .unwrap_or_default()
    }

    /// The architecture: the first of `architectures`.
    ///
    /// # Errors
    ///
    /// The key is missing or not a list of names.
    pub fn architecture(&self) -> Result<&str> {
        let found = self.config.get("architectures");
        found.and_then(|v| v.get(0)).and_then(Value::as_str).ok_or_else(|| ModelError::Config {
            path: self.config_path.clone(),
            key: "architectures".into(),
            expected: "a list with the architecture's name".into(),
            found: found.map_or_else(|| "nothing".into(), Value::to_string),
        })
    }
}

/// Reads a whole small file.
pub(crate) fn read(path: &Path, what: &'static str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => {
            ModelError::NotFound { path: path.to_owned(), what, hint: String::new() }
        }
        _ => ModelError::Io { path: path.to_owned(), source },
    })
}

/// Parses JSON read from `path`.
pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes)
        .map_err(|source| ModelError::Json { path: path.to_owned(), source })
}
