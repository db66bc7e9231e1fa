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
        let rows = parts.iter().map(|(_, rows)| rows).sum();
        let mut values = Values::with_capacity(self.dtype, rows * columns);
        self.append(&mut values, parts, columns)?;
        self.upload(values, [rows, columns])
    }

    /// One such stack for each of `experts`, as one tensor `[E, rows, columns]`; `parts` names the
    /// matrices of an expert.
    ///
    /// On the host lie the tensor and one matrix at a time.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub fn packed(
        &self,
        experts: usize,
        parts: impl Fn(usize) -> Vec<(String, usize)>,
        columns: usize,
    ) -> Result<Tensor<3>> {
        let rows = parts(0).iter().map(|(_, rows)| rows).sum();
        let mut values = Values::with_capacity(self.dtype, experts * rows * columns);
        for expert in 0..experts {
            self.append(&mut values, &parts(expert), columns)?;
        }
        self.upload(values, [experts, rows, columns])
    }

    /// A weight that lies beside the decoder, not below its prefix: the output head.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub fn head<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<D>> {
        let beside = self.prefix.strip_suffix("language_model.").unwrap_or(self.prefix);
        let beside = beside.strip_suffix("model.").unwrap_or(beside);
        self.upload(self.full(format!("{beside}{name}"), &shape, self.dtype)?, shape)
    }

    fn append(&self, values: &mut Values, parts: &[(String, usize)], columns: usize) -> Result<()> {
        for (name, rows) in parts {
            values.append(self.values(name, &[*rows, columns], self.dtype)?);
        }
        Ok(())
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
        self.full(format!("{}{name}", self.prefix), shape, dtype)
    }

    /// Values of the tensor with this full name.
    fn full(&self, name: String, shape: &[usize], dtype: DType) -> Result<Values> {
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
    fn with_capacity(dtype: DType, elements: usize) -> Self {
        match dtype {
            DType::F32 => Values::F32(Vec::with_capacity(elements)),
            DType::F16 => Values::F16(Vec::with_capacity(elements)),
            DType::Bf16 => Values::Bf16(Vec::with_capacity(elements)),
        }
    }

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
