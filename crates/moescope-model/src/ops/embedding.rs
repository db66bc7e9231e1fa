//! Rows of an embedding table.

use burn::tensor::{DType, Int, Tensor};

/// Rows `ids [T]` of `table [V, H]`, times `scale`, in f32: `[T, H]`.
pub fn embed(table: &Tensor<2>, ids: Tensor<1, Int>, scale: f32) -> Tensor<2> {
    table.clone().select(0, ids).cast(DType::F32) * scale
}
