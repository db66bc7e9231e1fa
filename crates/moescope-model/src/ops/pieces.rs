//! Weights in as many tensors as a device's largest binding asks for.

use burn::tensor::{Device, Tensor};

/// A weight cut along its first dimension: one tensor where the device can bind it whole, else several,
/// of equally many rows (or experts, or heads) but for the last.
#[derive(Clone, Debug)]
pub struct Pieces<const D: usize> {
    first: Tensor<D>,
    rest: Vec<Tensor<D>>,
}

impl<const D: usize> From<Tensor<D>> for Pieces<D> {
    fn from(whole: Tensor<D>) -> Self {
        Pieces { first: whole, rest: Vec::new() }
    }
}

impl<const D: usize> Pieces<D> {
    /// `first` and what follows it; all but the last are as long as `first`.
    pub fn new(first: Tensor<D>, rest: Vec<Tensor<D>>) -> Self {
        Pieces { first, rest }
    }

    /// Shape of the whole weight.
    pub fn dims(&self) -> [usize; D] {
        let mut dims = self.first.dims();
        dims[0] += self.rest.iter().map(|piece| piece.dims()[0]).sum::<usize>();
        dims
    }

    /// Where it lies.
    pub fn device(&self) -> Device {
        self.first.device()
    }

    /// The one tensor, where it is not cut.
    pub fn whole(&self) -> Option<&Tensor<D>> {
        self.rest.is_empty().then_some(&self.first)
    }

    /// Rows of every piece but perhaps the last.
    pub fn rows_each(&self) -> usize {
        self.first.dims()[0]
    }

    /// Every piece, with the index of its first row in the whole weight.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Tensor<D>)> {
        let each = self.rows_each();
        let all = std::iter::once(&self.first).chain(&self.rest);
        all.enumerate().map(move |(index, piece)| (index * each, piece))
    }

    /// The same weight laid out in another way, piece by piece.
    pub fn map<const E: usize>(&self, each: impl Fn(Tensor<D>) -> Tensor<E>) -> Pieces<E> {
        let rest = self.rest.iter().cloned().map(&each).collect();
        Pieces { first: each(self.first.clone()), rest }
    }

    /// One row: `[1, ...]`.
    pub fn row(&self, row: usize) -> Tensor<D> {
        let (index, within) = (row / self.rows_each(), row % self.rows_each());
        let piece = if index == 0 { &self.first } else { &self.rest[index - 1] };
        piece.clone().slice(within..within + 1)
    }
}

/// Rows of each piece of a weight of `rows` rows of `row_bytes` bytes where none may exceed `limit` bytes:
/// about equally many in each, in multiples that suit a GPU's tiles where there is room. At least one.
pub(crate) fn rows_per_piece(rows: usize, row_bytes: u64, limit: Option<u64>) -> usize {
    /// Rows of a tile.
    const TILE: usize = 64;
    let Some(limit) = limit else { return rows };
    let most = usize::try_from(limit / row_bytes.max(1)).unwrap_or(usize::MAX).max(1);
    if rows <= most {
        return rows;
    }
    let even = rows.div_ceil(rows.div_ceil(most));
    match even.next_multiple_of(TILE) {
        tiled if tiled <= most => tiled,
        _ => even,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_even_and_none_is_too_large() {
        assert_eq!(rows_per_piece(100, 10, None), 100);
        assert_eq!(rows_per_piece(100, 10, Some(1000)), 100);
        assert_eq!(rows_per_piece(100, 10, Some(999)), 64);
        assert_eq!(rows_per_piece(100, 10, Some(500)), 50);
        assert_eq!(rows_per_piece(100, 10, Some(340)), 34);
        assert_eq!(rows_per_piece(100, 10, Some(3)), 1);
        // The embedding of Gemma 4 26B-A4B in f32, where 2 GiB can be bound.
        let each = rows_per_piece(262_144, 2816 * 4, Some(1 << 31));
        assert_eq!(each, 131_072);
    }

    #[test]
    fn rows_are_found_in_their_piece() {
        let device = Device::flex();
        let piece = |rows: &[f32]| Tensor::<1>::from_floats(rows, &device).reshape([rows.len(), 1]);
        let pieces = Pieces::<2>::new(piece(&[0.0, 1.0]), vec![piece(&[2.0, 3.0]), piece(&[4.0])]);
        assert_eq!(pieces.dims(), [5, 1]);
        assert_eq!(pieces.iter().map(|(first, _)| first).collect::<Vec<_>>(), [0, 2, 4]);
        for row in 0..5 {
            assert_eq!(pieces.row(row).into_scalar::<f32>(), row as f32);
        }
    }
}
