//! Bytes of the weights on a device.

use std::collections::BTreeMap;

use crate::{
    dtype::DType,
    spec::{ModelSpec, Part, TensorSpec},
};

/// Bytes of the weights held in `dtype`, by part in the order of [`Part`]: parameters x bytes of the type;
/// norms, biases, sinks and routers are f32 whatever the type (see [`TensorSpec::is_exact`]).
///
/// Quantised checkpoints are decoded while loading: what is held does not depend on how it was stored.
pub fn weights(spec: &ModelSpec, dtype: DType) -> Vec<(Part, u64)> {
    by_part(spec, |tensor| tensor.bytes(dtype))
}

/// The sum of [`weights`].
pub fn weight_bytes(spec: &ModelSpec, dtype: DType) -> u64 {
    spec.bytes(dtype)
}

/// Sums over the tensors of each part.
pub(super) fn by_part(spec: &ModelSpec, of: impl Fn(&TensorSpec) -> u64) -> Vec<(Part, u64)> {
    let mut sums: BTreeMap<Part, u64> = BTreeMap::new();
    for tensor in &spec.tensors {
        *sums.entry(tensor.part).or_default() += of(tensor);
    }
    sums.into_iter().collect()
}
