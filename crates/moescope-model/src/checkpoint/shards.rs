//! The files of a checkpoint: found, checked against the index, opened.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Component, Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use memmap2::Mmap;
use safetensors::{SafeTensors, tensor::Metadata};
use serde_json::Value;

use super::{formats, parse, read};
use crate::error::{ModelError, Result};

/// Weights in one file.
pub(crate) const SINGLE: &str = "model.safetensors";
/// Which tensor lies in which shard.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// One safetensors file, open, its header read.
///
/// Tensors are read, not mapped: pages of a mapping count as this process's memory until it drops
/// them, and a file cut short while it is mapped ends the process instead of the load.
pub(crate) struct Shard {
    pub(crate) path: PathBuf,
    pub(crate) metadata: Metadata,
    file: Mutex<File>,
    data_start: u64,
}

impl Shard {
    fn open(path: &Path) -> Result<Self> {
        let io = |source| ModelError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the mapping is read-only and dropped when the header is parsed; a file that another
        // process cuts short in that moment can raise SIGBUS.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let (header, metadata) =
            SafeTensors::read_metadata(&map).map_err(|e| match formats::magic(path) {
                Some(format) => ModelError::Format { path: path.to_owned(), format },
                None => ModelError::Safetensors { path: path.to_owned(), reason: e.to_string() },
            })?;
        let data_start = 8 + header as u64;
        Ok(Shard { path: path.to_owned(), metadata, file: Mutex::new(file), data_start })
    }

    /// Fills `piece` with the bytes at `offset` of the data section.
    pub(crate) fn read(&self, offset: usize, piece: &mut [u8]) -> Result<()> {
        // Position and read belong together; a panic between them leaves nothing half-done.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.data_start + offset as u64))
            .and_then(|_| file.read_exact(piece))
            .map_err(|source| ModelError::Io { path: self.path.clone(), source })
    }
}

/// Finds and maps the files of the checkpoint at `path`, whose directory is `dir`.
pub(crate) fn open(path: &Path, dir: &Path) -> Result<Vec<Shard>> {
    if path.is_file() && is_index(path) {
        return open_index(path, dir);
    }
    let index = dir.join(INDEX);
    if path.is_file() && path.extension().is_none_or(|e| e != "json") {
        // A shard is no model without the others.
        let name = path.file_name().and_then(|name| name.to_str());
        let named = |shards: Vec<String>| shards.iter().any(|shard| Some(shard.as_str()) == name);
        return match index.is_file() && named(shard_names(&index)?) {
            true => open_index(&index, dir),
            false => Ok(vec![Shard::open(path)?]),
        };
    }
    if index.is_file() {
        return open_index(&index, dir);
    }
    let single = dir.join(SINGLE);
    if single.is_file() {
        return Ok(vec![Shard::open(&single)?]);
    }
    Err(match formats::other_format_in(dir) {
        Some(format) => ModelError::Format { path: dir.to_owned(), format },
        None => {
            ModelError::NotFound { path: single, what: "weights", hint: format!(", nor {INDEX}") }
        }
    })
}

fn open_index(index: &Path, dir: &Path) -> Result<Vec<Shard>> {
    let by_shard = read_index(index)?;
    let mut shards = Vec::with_capacity(by_shard.len());
    for (name, tensors) in by_shard {
        if !is_plain_name(&name) {
            return Err(ModelError::ShardOutside { index: index.to_owned(), shard: name });
        }
        let path = dir.join(&name);
        if !path.is_file() {
            return Err(ModelError::MissingShard {
                index: index.to_owned(),
                shard: name,
                dir: dir.to_owned(),
            });
        }
        let shard = Shard::open(&path)?;
        if let Some(tensor) = tensors.iter().find(|t| shard.metadata.info(t).is_none()) {
            return Err(ModelError::IndexMismatch {
                index: index.to_owned(),
                tensor: tensor.clone(),
                shard: name,
            });
        }
        shards.push(shard);
    }
    Ok(shards)
}

/// The shards an index names, with the tensors that lie in each.
fn read_index(index: &Path) -> Result<BTreeMap<String, BTreeSet<String>>> {
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
    let mut by_shard: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (tensor, shard) in map {
        let shard = shard.as_str().ok_or_else(|| wrong(tensor, shard))?;
        by_shard.entry(shard.to_owned()).or_default().insert(tensor.clone());
    }
    Ok(by_shard)
}

/// Whether the path is that of an index, by its name.
pub(crate) fn is_index(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.ends_with(".safetensors.index.json"))
}

/// Names of the shards of an index, sorted; whether they are sound is for [`is_plain_name`] to say.
pub(crate) fn shard_names(index: &Path) -> Result<Vec<String>> {
    Ok(read_index(index)?.into_keys().collect())
}

/// Whether `name` is that of a file in a directory and leads nowhere else.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let one = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    // A path of another system, or a name that a shell or an address would read otherwise.
    one && !name.contains(['/', '\\', ':', '%', '?', '#'])
}
