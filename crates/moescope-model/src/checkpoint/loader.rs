//! Strict reading of weights, one tensor at a time, into the compute type.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap, HashSet},
};

use burn::tensor::{Device, Tensor};
use safetensors::tensor::{Dtype, TensorInfo};

use super::{
    Checkpoint, Quantisation,
    fp8::{BlockScales, SCALE_SUFFIX},
    mxfp4,
    random::Random,
    shards::Shard,
    values::{BadElement, Stored, Values},
};
use crate::{
    capacity::tensor_limit,
    dtype::DType,
    error::{ModelError, Result},
    ops::pieces::{Pieces, rows_per_piece},
};

/// Bytes read and converted at a time. What a load holds beside the weights is two such pieces.
const PIECE: usize = 16 << 20;

/// Ends of the names of tensors that follow from the config and that older checkpoints hold nevertheless.
const DERIVED: &[&str] = &[".rotary_emb.inv_freq"];

/// Told after every piece read: bytes so far and in all.
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
    /// Full names of tensors that say again what others say.
    copies: RefCell<HashSet<String>>,
    bytes: Cell<u64>,
    largest: Cell<u64>,
    read: Cell<u64>,
    to_read: u64,
    progress: LoadProgress<'a>,
    /// Bytes a tensor on the device may take at most.
    tensor_limit: Option<u64>,
}

/// What was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightsSummary {
    /// BLAKE3 over name, type, shape and bytes of every tensor read, in name order; hex.
    pub hash: String,
    /// Bytes held on the device.
    pub bytes: u64,
    /// Bytes of the largest tensor there.
    pub largest: u64,
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
        let cut = |name: &str| checkpoint.layers.is_some_and(|layers| layers.cuts(name));
        let to_read = tensors
            .iter()
            .filter(|(name, _)| name.starts_with(prefix) && !cut(name))
            .map(|(_, (_, info))| (info.data_offsets.1 - info.data_offsets.0) as u64)
            .sum();
        // What is drawn has no bytes on disk; the config tells what there will be.
        let drawn = checkpoint.random.and_then(|_| crate::describe(checkpoint).ok());
        let to_read = drawn.map_or(to_read, |spec| spec.bytes(dtype));
        Loader {
            checkpoint,
            tensors,
            prefix,
            device: device.clone(),
            dtype,
            hashes: RefCell::default(),
            copies: RefCell::default(),
            bytes: Cell::new(0),
            largest: Cell::new(0),
            read: Cell::new(0),
            to_read,
            progress,
            tensor_limit: [checkpoint.tensor_limit(), tensor_limit(device)]
                .into_iter()
                .flatten()
                .min(),
        }
    }

    /// A weight in the compute type.
    ///
    /// # Errors
    ///
    /// The tensor is missing, has another shape or type, or holds NaN or infinity.
    pub fn weight<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Pieces<D>> {
        self.upload(self.values(name, &shape, self.dtype)?, shape)
    }

    /// A vector or scalar kept in f32: norms, scales, biases.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub fn vector<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<D>> {
        Ok(self.tensor(self.values(name, &shape, DType::F32)?, shape))
    }

    /// An f32 vector on the host, for values folded into others while loading.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub fn host(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.values(name, &[len], DType::F32).map(Values::into_f32)
    }

    /// Several matrices `[rows_i, columns]` stacked into one `[sum rows_i, columns]`, so that one
    /// multiplication serves them all.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub fn stacked(&self, parts: &[(String, usize)], columns: usize) -> Result<Pieces<2>> {
        let rows = parts.iter().map(|(_, rows)| rows).sum();
        self.expect(parts, columns)?;
        let mut values = Values::with_capacity(self.dtype, rows * columns);
        self.append_stack(parts, columns, &mut values)?;
        self.upload(values, [rows, columns])
    }

    /// One such stack for each of `experts`, as one tensor `[E, rows, columns]`; `parts` names the
    /// matrices of an expert.
    ///
    /// Beside the tensor, the host holds two pieces of what is being read.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub fn packed(
        &self,
        experts: usize,
        parts: impl Fn(usize) -> Vec<(String, usize)>,
        columns: usize,
    ) -> Result<Pieces<3>> {
        let rows = parts(0).iter().map(|(_, rows)| rows).sum();
        (0..experts).try_for_each(|expert| self.expect(&parts(expert), columns))?;
        let mut values = Values::with_capacity(self.dtype, experts * rows * columns);
        for expert in 0..experts {
            self.append_stack(&parts(expert), columns, &mut values)?;
        }
        self.upload(values, [experts, rows, columns])
    }

    /// A weight that lies beside the decoder, not below its prefix: the output head.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub fn head<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Pieces<D>> {
        let values = self.full(self.beside(name), &shape, self.dtype)?;
        self.upload(values, shape)
    }

    /// Accepts an output head that is stored although the model's head is its embedding, if it is the same to
    /// the last byte; of another one [`Loader::finish`] says that it is unexpected.
    ///
    /// # Errors
    ///
    /// The file can't be read.
    pub fn tied_head(&self, name: &str, embedding: &str) -> Result<()> {
        let name = self.beside(name);
        let embedding = self.tensors.get(&format!("{}{embedding}", self.prefix));
        if let (Some(head), Some(embedding)) = (self.tensors.get(&name), embedding)
            && same(*head, *embedding)?
        {
            self.copies.borrow_mut().insert(name);
        }
        Ok(())
    }

    /// The full name of a tensor that lies beside the decoder.
    fn beside(&self, name: &str) -> String {
        let beside = self.prefix.strip_suffix("language_model.").unwrap_or(self.prefix);
        format!("{}{name}", beside.strip_suffix("model.").unwrap_or(beside))
    }

    fn append_stack(
        &self,
        parts: &[(String, usize)],
        columns: usize,
        out: &mut Values,
    ) -> Result<()> {
        parts.iter().try_for_each(|(name, rows)| self.append(name, &[*rows, columns], out))
    }

    /// Refuses tensors nobody took, except those `skip` knows by their full name.
    ///
    /// # Errors
    ///
    /// [`ModelError::UnexpectedTensor`] with the first such tensor and how many more there are.
    pub fn finish(self, skip: impl Fn(&str) -> bool) -> Result<WeightsSummary> {
        let hashes = self.hashes.into_inner();
        let copies = self.copies.into_inner();
        let cut = |name: &str| self.checkpoint.layers.is_some_and(|layers| layers.cuts(name));
        let known = |name: &str| {
            let derived = DERIVED.iter().any(|end| name.ends_with(end));
            derived || copies.contains(name) || skip(name) || cut(name)
        };
        let mut unexpected: Vec<&str> = self
            .tensors
            .keys()
            .map(String::as_str)
            .filter(|name| !hashes.contains_key(*name) && !known(name))
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
        Ok(WeightsSummary {
            hash: hasher.finalize().to_hex().to_string(),
            bytes: self.bytes.get(),
            largest: self.largest.get(),
        })
    }

    /// A weight in the compute type on the host, for families that lay it out in another way.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub(crate) fn stored(&self, name: &str, shape: &[usize]) -> Result<Values> {
        self.values(name, shape, self.dtype)
    }

    /// Whether this weight is stored in MXFP4: its blocks are there, or the config says so and it is not there
    /// itself. Checkpoints that were converted to bf16 may still carry the config of their origin.
    ///
    /// # Errors
    ///
    /// It is, and its rows of `columns` values are not made of whole blocks.
    pub(crate) fn in_mxfp4(&self, name: &str, columns: usize) -> Result<bool> {
        let name = format!("{}{name}", self.prefix);
        let stored = |name: &str| self.tensors.contains_key(name);
        let named = self.checkpoint.quantisation == Some(Quantisation::Mxfp4);
        if !stored(&format!("{name}_blocks")) && (!named || stored(&name)) {
            return Ok(false);
        }
        match columns.is_multiple_of(mxfp4::BLOCK) {
            true => Ok(true),
            false => Err(ModelError::Config {
                path: self.checkpoint.config_path().to_owned(),
                key: name,
                expected: format!("rows of a multiple of {} values, as MXFP4 has", mxfp4::BLOCK),
                found: format!("rows of {columns}"),
            }),
        }
    }

    /// A weight `[E, rows, columns]` stored in MXFP4 as `name_blocks` and `name_scales`; row i of each expert
    /// is the stored row `row(i)`.
    ///
    /// Beside the tensor, the host holds what is stored of it and a piece of decoded values.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub(crate) fn mxfp4(
        &self,
        name: &str,
        shape: [usize; 3],
        row: impl Fn(usize) -> usize + Sync,
    ) -> Result<Pieces<3>> {
        let [experts, rows, columns] = shape;
        let groups = columns / mxfp4::BLOCK;
        let blocks = format!("{name}_blocks");
        let codes = self.bytes(&blocks, &[experts, rows, groups, mxfp4::BLOCK_BYTES], Dtype::U8)?;
        let scales = self.bytes(&format!("{name}_scales"), &[experts, rows, groups], Dtype::U8)?;
        let stored = mxfp4::Rows { blocks: &codes, scales: &scales, columns };
        let tensor = self.find(
            format!("{}{blocks}", self.prefix),
            &[experts, rows, groups, mxfp4::BLOCK_BYTES],
        )?;
        let mut values = Values::with_capacity(self.dtype, experts * rows * columns);
        let step = (PIECE / 4 / columns).max(1);
        let mut piece = Vec::new();
        for first in (0..experts * rows).step_by(step) {
            piece.resize(step.min(experts * rows - first) * columns, 0.0);
            let source = |i: usize| (first + i) / rows * rows + row((first + i) % rows);
            stored.decode(source, &mut piece);
            values
                .extend_f32(&piece)
                .map_err(|bad| tensor.bad(self.dtype, first * columns, bad))?;
        }
        self.upload(values, shape)
    }

    fn values(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Values> {
        self.full(format!("{}{name}", self.prefix), shape, dtype)
    }

    fn full(&self, name: String, shape: &[usize], dtype: DType) -> Result<Values> {
        if self.checkpoint.random.is_none() {
            self.find(name.clone(), shape)?;
        }
        let mut values = Values::with_capacity(dtype, shape.iter().product());
        self.append_full(name, shape, &mut values)?;
        Ok(values)
    }

    /// Looks at the shapes of what is to be read together, before memory is reserved by those of the config.
    fn expect(&self, parts: &[(String, usize)], columns: usize) -> Result<()> {
        if self.checkpoint.random.is_some() {
            return Ok(());
        }
        parts.iter().try_for_each(|(name, rows)| {
            self.find(format!("{}{name}", self.prefix), &[*rows, columns]).map(drop)
        })
    }

    /// Appends the values of one stored tensor to `out`, converted to the type `out` holds.
    ///
    /// The one way from files to values: read and converted piece by piece, so that packing many
    /// tensors into one holds the packed one and two pieces.
    ///
    /// # Errors
    ///
    /// As [`Loader::weight`].
    pub(crate) fn append(&self, name: &str, shape: &[usize], out: &mut Values) -> Result<()> {
        self.append_full(format!("{}{name}", self.prefix), shape, out)
    }

    /// The same for the full name of a tensor.
    fn append_full(&self, name: String, shape: &[usize], out: &mut Values) -> Result<()> {
        if let Some(random) = self.checkpoint.random {
            self.draw(random, name, shape, out);
            return Ok(());
        }
        let tensor = self.find(name, shape)?;
        let stored = match tensor.info.dtype {
            Dtype::F32 => Stored::F32,
            Dtype::F16 => Stored::F16,
            Dtype::BF16 => Stored::Bf16,
            Dtype::F8_E4M3 => return self.append_fp8(&tensor, out),
            _ => return Err(tensor.wrong_type()),
        };
        let mut done = 0;
        let dtype = out.dtype();
        self.stream(&tensor, stored.bytes(), PIECE, &mut |bytes| {
            out.extend_stored(bytes, stored).map_err(|bad| tensor.bad(dtype, done, bad))?;
            done += bytes.len() / stored.bytes();
            Ok(())
        })
    }

    /// Appends the values of a tensor that is in no file.
    fn draw(&self, random: Random, name: String, shape: &[usize], out: &mut Values) {
        match out {
            Values::F32(out) => random.extend(out, &name, shape),
            Values::F16(out) => random.extend(out, &name, shape),
            Values::Bf16(out) => random.extend(out, &name, shape),
        }
        let elements: usize = shape.iter().product();
        self.read.set(self.read.get() + elements as u64 * out.dtype().bytes());
        (self.progress)(self.read.get(), self.to_read);
        self.hashes.borrow_mut().insert(name.clone(), random.hash(&name, shape));
    }

    /// Appends a weight stored in 8-bit floats with a scale per block.
    fn append_fp8(&self, tensor: &Found<'_>, out: &mut Values) -> Result<()> {
        let scale_name = format!("{}{SCALE_SUFFIX}", tensor.name);
        let scaled = self.tensors.contains_key(&scale_name);
        let (&[rows, columns], true) = (tensor.info.shape.as_slice(), scaled) else {
            return Err(tensor.wrong_type());
        };
        let block = self.checkpoint.fp8_block();
        let shape = BlockScales::shape(rows, columns, block);
        let mut scales = Values::with_capacity(DType::F32, shape.iter().product());
        self.append_full(scale_name, &shape, &mut scales)?;
        let scales = BlockScales { scales: scales.into_f32(), block, columns };
        let (mut row, dtype) = (0, out.dtype());
        // A code becomes an f32 on its way.
        self.stream(tensor, columns, PIECE / 4, &mut |codes| {
            let values = scales.decode(codes, row);
            out.extend_f32(&values).map_err(|bad| tensor.bad(dtype, row * columns, bad))?;
            row += codes.len() / columns;
            Ok(())
        })
    }

    /// The bytes of a tensor as stored, for formats decoded by their family.
    ///
    /// # Errors
    ///
    /// The tensor is missing or has another shape or type.
    pub fn bytes(&self, name: &str, shape: &[usize], dtype: Dtype) -> Result<Vec<u8>> {
        let tensor = self.find(format!("{}{name}", self.prefix), shape)?;
        if tensor.info.dtype != dtype {
            return Err(tensor.wrong_type());
        }
        let mut out = Vec::with_capacity(tensor.len());
        self.stream(&tensor, 1, PIECE, &mut |bytes| {
            out.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(out)
    }

    /// Locates a tensor by its full name.
    fn find(&self, name: String, shape: &[usize]) -> Result<Found<'a>> {
        let Some(&(shard, info)) = self.tensors.get(&name) else {
            return Err(ModelError::MissingTensor {
                path: self.checkpoint.dir().to_owned(),
                name,
                shape: shape.to_vec(),
            });
        };
        if info.shape != shape {
            return Err(ModelError::Shape {
                path: shard.path.clone(),
                name,
                expected: shape.to_vec(),
                found: info.shape.clone(),
            });
        }
        Ok(Found { shard, info, name })
    }

    /// Shows the bytes of a tensor in order, in pieces of about `piece` bytes and a multiple of `align`, and
    /// marks it as taken.
    ///
    /// The next piece is read and this one hashed while `each` works on it.
    fn stream(
        &self,
        tensor: &Found<'_>,
        align: usize,
        piece: usize,
        each: &mut (dyn FnMut(&[u8]) -> Result<()> + Send),
    ) -> Result<()> {
        let (len, step) = (tensor.len(), (piece / align.max(1)).max(1) * align.max(1));
        let mut hasher = blake3::Hasher::new();
        let header = format!("{} {:?} {:?}", tensor.name, tensor.info.dtype, tensor.info.shape);
        hasher.update(header.as_bytes());
        let read = |at: usize, piece: &mut Vec<u8>| {
            piece.resize(step.min(len - at), 0);
            tensor.shard.read(tensor.info.data_offsets.0 + at, piece)
        };
        let (mut piece, mut next) = (Vec::new(), Vec::new());
        read(0, &mut piece)?;
        let mut at = 0;
        while !piece.is_empty() {
            at += piece.len();
            let mut hash = || {
                hasher.update(&piece);
            };
            let work = || rayon::join(|| each(&piece), &mut hash).0;
            let (worked, read) = rayon::join(work, || read(at, &mut next));
            worked?;
            read?;
            self.read.set(self.read.get() + piece.len() as u64);
            (self.progress)(self.read.get(), self.to_read);
            std::mem::swap(&mut piece, &mut next);
        }
        self.hashes.borrow_mut().insert(tensor.name.clone(), hasher.finalize());
        Ok(())
    }

    /// Values of the compute type on the device, in as many tensors as its limit asks for.
    pub(crate) fn upload<const D: usize>(
        &self,
        values: Values,
        shape: [usize; D],
    ) -> Result<Pieces<D>> {
        let row: usize = shape[1..].iter().product();
        let row_bytes = row as u64 * values.dtype().bytes();
        let each = rows_per_piece(shape[0], row_bytes, self.tensor_limit);
        if each >= shape[0] {
            return Ok(self.tensor(values, shape).into());
        }
        let piece = |first: usize| {
            let mut shape = shape;
            shape[0] = each.min(shape[0] - first);
            self.tensor(values.part(first * row, shape[0] * row), shape)
        };
        let rest = (each..shape[0]).step_by(each).map(piece).collect();
        Ok(Pieces::new(piece(0), rest))
    }

    /// Values as one tensor on the device.
    fn tensor<const D: usize>(&self, values: Values, shape: [usize; D]) -> Tensor<D> {
        let (data, dtype) = values.into_data(shape);
        let elements: usize = shape.iter().product();
        let bytes = (elements * dtype.size()) as u64;
        self.bytes.set(self.bytes.get() + bytes);
        self.largest.set(self.largest.get().max(bytes));
        Tensor::from_data(data, (&self.device, dtype))
    }
}

/// Whether two stored tensors are the same in type, shape and every byte.
fn same(one: (&Shard, &TensorInfo), other: (&Shard, &TensorInfo)) -> Result<bool> {
    if one.1.dtype != other.1.dtype || one.1.shape != other.1.shape {
        return Ok(false);
    }
    let len = one.1.data_offsets.1 - one.1.data_offsets.0;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for at in (0..len).step_by(PIECE) {
        for ((shard, info), piece) in [(one, &mut a), (other, &mut b)] {
            piece.resize(PIECE.min(len - at), 0);
            shard.read(info.data_offsets.0 + at, piece)?;
        }
        if a != b {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A tensor of the expected shape, located.
struct Found<'a> {
    shard: &'a Shard,
    info: &'a TensorInfo,
    /// Full name.
    name: String,
}

impl Found<'_> {
    /// Bytes stored.
    fn len(&self) -> usize {
        self.info.data_offsets.1 - self.info.data_offsets.0
    }

    /// The error for a type that is not read.
    fn wrong_type(&self) -> ModelError {
        ModelError::TensorType {
            path: self.shard.path.clone(),
            name: self.name.clone(),
            found: format!("{:?}", self.info.dtype),
        }
    }

    /// The error for an element that is not finite in the type held; `done` came before its piece.
    fn bad(&self, dtype: DType, done: usize, (index, value): BadElement) -> ModelError {
        let (path, name, index) = (self.shard.path.clone(), self.name.clone(), done + index);
        match value.is_finite() {
            true => ModelError::OutOfRange { path, name, index, dtype: dtype.as_str() },
            false => ModelError::NotFinite { path, name, index, value },
        }
    }
}
