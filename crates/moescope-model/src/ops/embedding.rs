//! Rows of an embedding table.

use burn::tensor::{DType, Int, Tensor};

use super::pieces::Pieces;

/// Rows `ids [T]` of `table [V, H]`, times `scale`, in f32: `[T, H]`.
pub fn embed(table: &Pieces<2>, ids: Tensor<1, Int>, scale: f32) -> Tensor<2> {
    let rows = |table: &Tensor<2>, ids| table.clone().select(0, ids).cast(DType::F32);
    if let Some(table) = table.whole() {
        return rows(table, ids) * scale;
    }
    // Every piece gives a row for every token; those of ids that lie elsewhere count for nothing. Weights
    // are finite, so that 0 times one of them is 0.
    let ([t], [_, width]) = (ids.dims(), table.dims());
    let mut sum = Tensor::zeros([t, width], (&ids.device(), DType::F32));
    for (first, piece) in table.iter() {
        let last = piece.dims()[0] as i64 - 1;
        let at = ids.clone() - first as i64;
        let inside = at.clone().greater_equal_elem(0).bool_and(at.clone().lower_equal_elem(last));
        let inside = inside.float().cast(DType::F32).reshape([t, 1]);
        sum = sum + rows(piece, at.clamp(0, last)) * (inside * scale);
    }
    sum
}
