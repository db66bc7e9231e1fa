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
    by_part(spec, |tensor| tensor.bytes(dtype), u64::saturating_add)
}

/// Sums over the tensors of each part.
pub(super) fn by_part<T: Copy + Default>(
    spec: &ModelSpec,
    of: impl Fn(&TensorSpec) -> T,
    add: impl Fn(T, T) -> T,
) -> Vec<(Part, T)> {
    let mut sums: BTreeMap<Part, T> = BTreeMap::new();
    for tensor in &spec.tensors {
        let sum = sums.entry(tensor.part).or_default();
        *sum = add(*sum, of(tensor));
    }
    sums.into_iter().collect()
}
