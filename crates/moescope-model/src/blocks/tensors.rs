//! Names and shapes of tensors: declared without weights, or read from a checkpoint.

use burn::tensor::Tensor;

use crate::{
    checkpoint::{Loader, values::Values},
    error::Result,
    ops::{norm::RmsNorm, pieces::Pieces},
    spec::{Part, Role, TensorSpec},
};

/// The tensors a model says it has, collected part by part.
#[derive(Debug, Default)]
pub(crate) struct Tensors {
    list: Vec<TensorSpec>,
    prefix: String,
    layer: Option<u16>,
}

impl Tensors {
    /// Adds a matrix (or one per expert), or a vector, named below the current scope.
    pub(crate) fn add(&mut self, name: &str, shape: &[usize], part: Part) {
        let role = if shape.len() > 1 { Role::Matrix } else { Role::Vector };
        self.push(name, shape, part, role);
    }

    /// Adds a table of rows per token id.
    pub(crate) fn table(&mut self, name: &str, shape: &[usize], part: Part) {
        self.push(name, shape, part, Role::Table);
    }

    /// Adds vectors, one per expert.
    pub(crate) fn vectors(&mut self, name: &str, shape: [usize; 2], part: Part) {
        self.push(name, &shape, part, Role::Vector);
    }

    fn push(&mut self, name: &str, shape: &[usize], part: Part, role: Role) {
        let name = format!("{}{name}", self.prefix);
        self.list.push(TensorSpec { name, layer: self.layer, shape: shape.to_vec(), part, role });
    }

    /// Adds those of a layer, below `layers.INDEX.`.
    pub(crate) fn layer(&mut self, index: usize, add: impl FnOnce(&mut Tensors)) {
        self.layer = Some(index as u16);
        self.within(&format!("layers.{index}"), add);
        self.layer = None;
    }

    /// Adds those of a part, below `name.`.
    pub(crate) fn within(&mut self, name: &str, add: impl FnOnce(&mut Tensors)) {
        let outer = self.prefix.len();
        self.prefix.push_str(name);
        self.prefix.push('.');
        add(self);
        self.prefix.truncate(outer);
    }

    /// All of them.
    pub(crate) fn into_list(self) -> Vec<TensorSpec> {
        self.list
    }
}

/// The weights of a checkpoint below a name.
pub(crate) struct Weights<'a> {
    loader: &'a Loader<'a>,
    prefix: String,
}

impl<'a> Weights<'a> {
    /// Those of a whole decoder.
    pub(crate) fn new(loader: &'a Loader<'a>) -> Self {
        Weights { loader, prefix: String::new() }
    }

    /// Those of a layer.
    pub(crate) fn layer(&self, index: usize) -> Self {
        self.within(&format!("layers.{index}"))
    }

    /// Those of a part.
    pub(crate) fn within(&self, name: &str) -> Self {
        Weights { loader: self.loader, prefix: self.name(name) + "." }
    }

    /// A weight in the compute type.
    pub(crate) fn weight<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
    ) -> Result<Pieces<D>> {
        self.loader.weight(&self.name(name), shape)
    }

    /// A weight kept in f32: norms, scales, biases, routers.
    pub(crate) fn exact<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<D>> {
        self.loader.vector(&self.name(name), shape)
    }

    /// A scalar.
    pub(crate) fn scalar(&self, name: &str) -> Result<f32> {
        Ok(self.loader.host(&self.name(name), 1)?[0])
    }

    /// An RMS norm whose weight is `offset` plus what the checkpoint holds.
    pub(crate) fn norm(&self, name: &str, width: usize, eps: f32, offset: f32) -> Result<RmsNorm> {
        let weight = self.exact(name, [width])?;
        Ok(RmsNorm::new(if offset == 0.0 { weight } else { weight + offset }, eps))
    }

    /// Matrices of `columns` columns on top of each other, by name and rows.
    pub(crate) fn stacked(&self, parts: &[(&str, usize)], columns: usize) -> Result<Pieces<2>> {
        self.loader.stacked(&self.named(parts), columns)
    }

    /// Vectors one after the other, by name and length, in f32.
    pub(crate) fn joined(&self, parts: &[(&str, usize)]) -> Result<Tensor<1>> {
        let parts = parts.iter().map(|(name, length)| self.exact(name, [*length]));
        Ok(Tensor::cat(parts.collect::<Result<_>>()?, 0))
    }

    /// One stack per expert, `[E, rows, columns]`; `parts` are named below `experts.EXPERT.`.
    pub(crate) fn experts(
        &self,
        experts: usize,
        parts: &[(&str, usize)],
        columns: usize,
    ) -> Result<Pieces<3>> {
        let of = |expert: usize| self.within(&format!("experts.{expert}")).named(parts);
        self.loader.packed(experts, of, columns)
    }

    /// A weight in the compute type on the host, to be laid out in another way.
    pub(crate) fn stored(&self, name: &str, shape: &[usize]) -> Result<Values> {
        self.loader.stored(&self.name(name), shape)
    }

    /// Such values on the device.
    pub(crate) fn upload<const D: usize>(
        &self,
        values: Values,
        shape: [usize; D],
    ) -> Result<Pieces<D>> {
        self.loader.upload(values, shape)
    }

    /// Whether a weight is stored in MXFP4; see [`Loader::in_mxfp4`].
    pub(crate) fn in_mxfp4(&self, name: &str, columns: usize) -> Result<bool> {
        self.loader.in_mxfp4(&self.name(name), columns)
    }

    /// A weight stored in MXFP4; see [`Loader::mxfp4`].
    pub(crate) fn mxfp4(
        &self,
        name: &str,
        shape: [usize; 3],
        row: impl Fn(usize) -> usize + Sync,
    ) -> Result<Pieces<3>> {
        self.loader.mxfp4(&self.name(name), shape, row)
    }

    /// The output head, which lies beside the decoder.
    pub(crate) fn head<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Pieces<D>> {
        self.loader.head(name, shape)
    }

    /// See [`Loader::tied_head`].
    pub(crate) fn tied_head(&self, name: &str, embedding: &str) -> Result<()> {
        self.loader.tied_head(name, &self.name(embedding))
    }

    fn named(&self, parts: &[(&str, usize)]) -> Vec<(String, usize)> {
        parts.iter().map(|(name, rows)| (self.name(name), *rows)).collect()
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// Whether the tensor with this full name belongs to one of the `count` layers from `first` on: those after
/// the last that predict further tokens, which a forward pass has no use for.
pub(crate) fn predicts(name: &str, first: usize, count: usize) -> bool {
    let index = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
    let index = index.and_then(|index| index.parse::<usize>().ok());
    index.is_some_and(|index| (first..first.saturating_add(count)).contains(&index))
}
