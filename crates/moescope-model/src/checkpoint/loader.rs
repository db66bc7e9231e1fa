//! Strict reading of weights, one tensor at a time, into the compute type.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
};

use burn::tensor::{DType as BurnDType, Device, Tensor, TensorData};
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, TensorInfo};

use super::{Checkpoint, shards::Shard};
use crate::{
    dtype::DType,
    error::{ModelError, Result},
};

/// Elements converted by one task.
const CHUNK: usize = 1 << 16;

/// Told after every tensor: bytes read so far and in all.
pub type LoadProgress<'a> = &'a dyn Fn(u64, u64);

/// Reads the tensors of a checkpoint below a name prefix, each exactly once.
///
/// What a model does not take, and its family does not skip by name, is an error in
/// [`Loader::finish`].
pub struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    tensors: HashMap<String, (&'a Shard, &'a TensorInfo)>,
    prefix: &'static str,
    device: Device,
    dtype: DType,
    hashes: RefCell<BTreeMap<String, blake3::Hash>>,
    bytes: Cell<u64>,
    read: Cell<u64>,
    to_read: u64,
    progress: LoadProgress<'a>,
}

/// What was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightsSummary {
    /// BLAKE3 over name, type, shape and bytes of every tensor read, in name order; hex.
    pub hash: String,
    /// Bytes held on the device.
    pub bytes: u64,
}

impl<'a> Loader<'a> {
    /// A loader for the tensors of `checkpoint` whose names start with the first of `prefixes` in use.
    ///
    /// Weights become `dtype` on `device`.
    pub fn new(
        checkpoint: &'a Checkpoint,
        prefixes: &[&'static str],
        device: &Device,
        dtype: DType,
        progress: LoadProgress<'a>,
    ) -> Self {
        let named = |shard: &'a Shard| {
            shard.metadata.tensors().into_iter().map(move |(name, info)| (name, (shard, info)))
        };
        let tensors: HashMap<_, _> = checkpoint.shards.iter().flat_map(named).collect();
        let used = |prefix: &&&'static str| tensors.keys().any(|name| name.starts_with(**prefix));
        let prefix = prefixes.iter().find(used).copied().unwrap_or("");
        let to_read = tensors
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(_, (_, info))| (info.data_offsets.1 - info.data_offsets.0) as u64)
            .sum();
        Loader {
            checkpoint,
            tensors,
            prefix,
            device: device.clone(),
            dtype,
            hashes: RefCell::default(),
            bytes: Cell::new(0),
            read: Cell::new(0),
            to_read,
            progress,
        }
    }

    /// A weight in the compute type.
    ///
    /// # Errors
    ///
    /// The tensor is missing, has another shape or type, or holds NaN or infinity.
    pub fn weight<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<D>> {
        self.upload(self.values(name, &shape, self.dtype)?, shape)
    }

    /// A vector or scalar kept in f32: norms, scales, biases.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub fn vector<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<D>> {
        self.upload(self.values(name, &shape, DType::F32)?, shape)
    }

    /// An f32 vector on the host, for values folded into others while loading.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub fn host(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        match self.values(name, &[len], DType::F32)? {
            Values::F32(values) => Ok(values),
            // `values` converts to the type asked for.
            Values::F16(_) | Values::Bf16(_) => unreachable!("asked for f32"),
        }
    }

    /// Several matrices `[rows_i, columns]` stacked into one `[sum rows_i, columns]`, so that one
    /// multiplication serves them all.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub fn stacked(&self, parts: &[(String, usize)], columns: usize) -> Result<Tensor<2>> {
        let mut parts = parts.iter();
        // A stack has at least one part by construction of its callers.
        let (name, mut rows) = parts.next().cloned().unwrap_or_default();
        let mut values = self.values(&name, &[rows, columns], self.dtype)?;
        for (name, more) in parts {
            values.append(self.values(name, &[*more, columns], self.dtype)?);
            rows += more;
        }
        self.upload(values, [rows, columns])
    }

    /// Refuses tensors nobody took, except those `skip` knows by their full name.
    ///
    /// # Errors
    ///
    /// [`ModelError::UnexpectedTensor`] with the first such tensor and how many more there are.
    pub fn finish(self, skip: impl Fn(&str) -> bool) -> Result<WeightsSummary> {
        let hashes = self.hashes.into_inner();
        let mut unexpected: Vec<&str> = self
            .tensors
            .keys()
            .map(String::as_str)
            .filter(|name| !hashes.contains_key(*name) && !skip(name))
            .collect();
        unexpected.sort_unstable();
        if let Some(name) = unexpected.first() {
            let (shard, info) = self.tensors[*name];
            return Err(ModelError::UnexpectedTensor {
                path: shard.path.clone(),
                name: (*name).to_owned(),
                shape: info.shape.clone(),
                more: match unexpected.len() - 1 {
                    0 => String::new(),
                    n => format!(" and {n} more"),
                },
            });
        }
        let mut hasher = blake3::Hasher::new();
        for hash in hashes.values() {
            hasher.update(hash.as_bytes());
        }
        Ok(WeightsSummary { hash: hasher.finalize().to_hex().to_string(), bytes: self.bytes.get() })
    }

    fn values(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Values> {
        let name = format!("{}{name}", self.prefix);
        let &(shard, info) =
            self.tensors.get(name.as_str()).ok_or_else(|| ModelError::MissingTensor {
                path: self.checkpoint.dir().to_owned(),
                name: name.clone(),
                shape: shape.to_vec(),
            })?;
        if info.shape != shape {
            return Err(ModelError::Shape {
                path: shard.path.clone(),
                name,
                expected: shape.to_vec(),
                found: info.shape.clone(),
            });
        }
        let bytes = shard.bytes(info.data_offsets);
        let converted = match info.dtype {
            Dtype::F32 => convert::<4>(bytes, dtype, f32::from_le_bytes),
            Dtype::F16 => convert::<2>(bytes, dtype, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => convert::<2>(bytes, dtype, |b| bf16::from_le_bytes(b).to_f32()),
            other => {
                return Err(ModelError::TensorType {
                    path: shard.path.clone(),
                    name,
                    found: format!("{other:?}"),
                });
            }
        };
        let values = converted.map_err(|(index, value)| {
            let (path, name) = (shard.path.clone(), name.clone());
            match value.is_finite() {
                true => ModelError::OutOfRange { path, name, index, dtype: dtype.as_str() },
                false => ModelError::NotFinite { path, name, index, value },
            }
        })?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{name} {:?} {:?}", info.dtype, info.shape).as_bytes());
        hasher.update(bytes);
        self.hashes.borrow_mut().insert(name, hasher.finalize());
        self.read.set(self.read.get() + bytes.len() as u64);
        (self.progress)(self.read.get(), self.to_read);
        Ok(values)
    }

    fn upload<const D: usize>(&self, values: Values, shape: [usize; D]) -> Result<Tensor<D>> {
        let (data, dtype) = match values {
            Values::F32(v) => (TensorData::new(v, shape), BurnDType::F32),
            Values::F16(v) => (TensorData::new(v, shape), BurnDType::F16),
            Values::Bf16(v) => (TensorData::new(v, shape), BurnDType::BF16),
        };
        let elements: usize = shape.iter().product();
        self.bytes.set(self.bytes.get() + (elements * dtype.size()) as u64);
        Ok(Tensor::from_data(data, (&self.device, dtype)))
    }
}

/// Values of one tensor in the type they are held in.
enum Values {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Values {
    fn append(&mut self, more: Values) {
        match (self, more) {
            (Values::F32(a), Values::F32(b)) => a.extend(b),
            (Values::F16(a), Values::F16(b)) => a.extend(b),
            (Values::Bf16(a), Values::Bf16(b)) => a.extend(b),
            // Both sides come from `Loader::values` with the same type.
            _ => unreachable!("stacked parts have one type"),
        }
    }
}

/// Decodes `N`-byte elements, checks them and converts them to `dtype`.
///
/// Fails with the index of the first element that is not finite after conversion, and its value before.
fn convert<const N: usize>(
    bytes: &[u8],
    dtype: DType,
    decode: fn([u8; N]) -> f32,
) -> Result<Values, (usize, f32)> {
    match dtype {
        DType::F32 => each(bytes, decode, |x| x, |x| *x).map(Values::F32),
        DType::F16 => each(bytes, decode, f16::from_f32, |x| x.to_f32()).map(Values::F16),
        DType::Bf16 => each(bytes, decode, bf16::from_f32, |x| x.to_f32()).map(Values::Bf16),
    }
}

fn each<const N: usize, T: Copy + Default + Send>(
    bytes: &[u8],
    decode: fn([u8; N]) -> f32,
    encode: impl Fn(f32) -> T + Sync,
    value: impl Fn(&T) -> f32 + Sync,
) -> Result<Vec<T>, (usize, f32)> {
    let (elements, _) = bytes.as_chunks::<N>();
    let mut out = vec![T::default(); elements.len()];
    let bad = out
        .par_chunks_mut(CHUNK)
        .zip(elements.par_chunks(CHUNK))
        .enumerate()
        .filter_map(|(chunk, (out, elements))| {
            let mut finite = true;
            for (o, e) in out.iter_mut().zip(elements) {
                *o = encode(decode(*e));
                finite &= value(o).is_finite();
            }
            let at = (!finite).then(|| out.iter().position(|o| !value(o).is_finite()))??;
            Some((chunk * CHUNK + at, decode(elements[at])))
        })
        .min_by_key(|(index, _)| *index);
    match bad {
        None => Ok(out),
        Some(bad) => Err(bad),
    }
}
