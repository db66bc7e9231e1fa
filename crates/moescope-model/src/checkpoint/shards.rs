//! The files of a checkpoint: found, checked against the index, mapped.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Component, Path, PathBuf},
};

use memmap2::Mmap;
use safetensors::{SafeTensors, tensor::Metadata};
use serde_json::Value;

use super::{parse, read};
use crate::error::{ModelError, Result};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Checkpoint files of formats that are not read, by file extension.
const OTHER_FORMATS: &[(&str, &str)] = &[
    ("gguf", "GGUF"),
    ("ggml", "GGML"),
    ("bin", "PyTorch pickle (.bin)"),
    ("pt", "PyTorch pickle (.pt)"),
    ("pth", "PyTorch pickle (.pth)"),
    ("ckpt", "PyTorch pickle (.ckpt)"),
    ("onnx", "ONNX"),
    ("h5", "Keras (.h5)"),
    ("msgpack", "Flax (.msgpack)"),
];

/// One safetensors file, mapped.
pub(crate) struct Shard {
    pub(crate) path: PathBuf,
    pub(crate) metadata: Metadata,
    map: Mmap,
    data_start: usize,
}

impl Shard {
    fn open(path: &Path) -> Result<Self> {
        let io = |source| ModelError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the mapping is read-only; a file that another process cuts short while it is
        // mapped can raise SIGBUS, the accepted risk of every mapped checkpoint.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| {
            ModelError::Safetensors { path: path.to_owned(), reason: e.to_string() }
        })?;
        Ok(Shard { path: path.to_owned(), metadata, map, data_start: 8 + header })
    }

    /// Bytes of a tensor, by its offsets in the data section (validated when the header was read).
    pub(crate) fn bytes(&self, offsets: (usize, usize)) -> &[u8] {
        &self.map[self.data_start + offsets.0..self.data_start + offsets.1]
    }
}

/// Finds and maps the files of the checkpoint at `path`, whose directory is `dir`.
pub(crate) fn open(path: &Path, dir: &Path) -> Result<Vec<Shard>> {
    if path.is_file() && path.extension().is_none_or(|e| e != "json") {
        return match other_format(path) {
            Some(format) => Err(ModelError::Format { path: path.to_owned(), format }),
            None => Ok(vec![Shard::open(path)?]),
        };
    }
    let index = dir.join(INDEX);
    if index.is_file() {
        return open_index(&index, dir);
    }
    let single = dir.join(SINGLE);
    if single.is_file() {
        return Ok(vec![Shard::open(&single)?]);
    }
    let format = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| other_format(&entry.ok()?.path()))
        .next();
    Err(match format {
        Some(format) => ModelError::Format { path: dir.to_owned(), format },
        None => {
            ModelError::NotFound { path: single, what: "weights", hint: format!(", nor {INDEX}") }
        }
    })
}

fn open_index(index: &Path, dir: &Path) -> Result<Vec<Shard>> {
    let json = parse(index, &read(index, "shard index")?)?;
    let wrong = |key: &str, found: &Value| ModelError::Config {
        path: index.to_owned(),
        key: key.to_owned(),
        expected: "the name of a shard".into(),
        found: found.to_string(),
    };
    let map = json
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| wrong("weight_map", json.get("weight_map").unwrap_or(&Value::Null)))?;
    let mut by_shard: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (tensor, shard) in map {
        let shard = shard.as_str().ok_or_else(|| wrong(tensor, shard))?;
        by_shard.entry(shard).or_default().insert(tensor);
    }
    let mut shards = Vec::with_capacity(by_shard.len());
    for (name, tensors) in by_shard {
        let mut parts = Path::new(name).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return Err(ModelError::ShardOutside {
                index: index.to_owned(),
                shard: name.to_owned(),
            });
        }
        let path = dir.join(name);
        if !path.is_file() {
            return Err(ModelError::MissingShard {
                index: index.to_owned(),
                shard: name.to_owned(),
                dir: dir.to_owned(),
            });
        }
        let shard = Shard::open(&path)?;
        if let Some(tensor) = tensors.iter().find(|t| shard.metadata.info(t).is_none()) {
            return Err(ModelError::IndexMismatch {
                index: index.to_owned(),
                tensor: (*tensor).to_owned(),
                shard: name.to_owned(),
            });
        }
        shards.push(shard);
    }
    Ok(shards)
}

fn other_format(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?;
    OTHER_FORMATS.iter().find(|(e, _)| *e == extension).map(|(_, format)| *format)
}
