//! Values of a tensor in the type they are held in, appended piece by piece.

use burn::tensor::{DType as BurnDType, TensorData};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::dtype::DType;

/// Elements converted by one task.
const CHUNK: usize = 1 << 16;

/// The first element that is not finite in the type it was converted to: its flat index among the
/// values appended with it, and its value before conversion.
pub(crate) type BadElement = (usize, f32);

/// Values in the type they are held in on the device.
///
/// The buffer is made once for all that will be appended, so that packing many stored tensors into one
/// never holds anything twice.
pub(crate) enum Values {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

/// How floats are stored in a file; little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    F32,
    F16,
    Bf16,
}

impl Stored {
    /// Bytes per element.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Stored::F32 => 4,
            Stored::F16 | Stored::Bf16 => 2,
        }
    }
}

impl Values {
    /// Room for `elements` values of `dtype`.
    pub(crate) fn with_capacity(dtype: DType, elements: usize) -> Self {
        match dtype {
            DType::F32 => Values::F32(Vec::with_capacity(elements)),
            DType::F16 => Values::F16(Vec::with_capacity(elements)),
            DType::Bf16 => Values::Bf16(Vec::with_capacity(elements)),
        }
    }

    /// The type held.
    pub(crate) fn dtype(&self) -> DType {
        match self {
            Values::F32(_) => DType::F32,
            Values::F16(_) => DType::F16,
            Values::Bf16(_) => DType::Bf16,
        }
    }

    /// Appends stored floats.
    pub(crate) fn extend_stored(&mut self, bytes: &[u8], stored: Stored) -> Result<(), BadElement> {
        match stored {
            Stored::F32 => self.extend(bytes.as_chunks::<4>().0, |b| f32::from_le_bytes(*b)),
            Stored::F16 => {
                self.extend(bytes.as_chunks::<2>().0, |b| f16::from_le_bytes(*b).to_f32())
            }
            Stored::Bf16 => {
                self.extend(bytes.as_chunks::<2>().0, |b| bf16::from_le_bytes(*b).to_f32())
            }
        }
    }

    /// Appends decoded values: what a quantised format comes to.
    pub(crate) fn extend_f32(&mut self, values: &[f32]) -> Result<(), BadElement> {
        self.extend(values, |x| *x)
    }

    /// Appends `elements`, decoded to f32 and converted to the type held.
    fn extend<E: Sync>(
        &mut self,
        elements: &[E],
        decode: impl Fn(&E) -> f32 + Sync,
    ) -> Result<(), BadElement> {
        match self {
            Values::F32(out) => extend(out, elements, decode, |x| x, |x| *x),
            Values::F16(out) => extend(out, elements, decode, f16::from_f32, |x| x.to_f32()),
            Values::Bf16(out) => extend(out, elements, decode, bf16::from_f32, |x| x.to_f32()),
        }
    }

    /// `len` of these values in another order: the i-th is `self[from(i)]`.
    pub(crate) fn gathered(&self, len: usize, from: impl Fn(usize) -> usize + Sync) -> Self {
        match self {
            Values::F32(v) => Values::F32((0..len).into_par_iter().map(|i| v[from(i)]).collect()),
            Values::F16(v) => Values::F16((0..len).into_par_iter().map(|i| v[from(i)]).collect()),
            Values::Bf16(v) => Values::Bf16((0..len).into_par_iter().map(|i| v[from(i)]).collect()),
        }
    }

    /// Matrices `[E, rows, columns]` turned into `[E, columns, rows]`; row r of each comes from the column
    /// `column(r)`.
    pub(crate) fn transposed(
        &self,
        rows: usize,
        columns: usize,
        column: impl Fn(usize) -> usize + Sync,
    ) -> Self {
        match self {
            Values::F32(v) => Values::F32(transposed(v, rows, columns, column)),
            Values::F16(v) => Values::F16(transposed(v, rows, columns, column)),
            Values::Bf16(v) => Values::Bf16(transposed(v, rows, columns, column)),
        }
    }

    /// `len` of these values, from the one at `first` on.
    pub(crate) fn part(&self, first: usize, len: usize) -> Self {
        match self {
            Values::F32(v) => Values::F32(v[first..first + len].to_vec()),
            Values::F16(v) => Values::F16(v[first..first + len].to_vec()),
            Values::Bf16(v) => Values::Bf16(v[first..first + len].to_vec()),
        }
    }

    /// As data for a tensor of `shape`, with its type.
    pub(crate) fn into_data<const D: usize>(self, shape: [usize; D]) -> (TensorData, BurnDType) {
        match self {
            Values::F32(v) => (TensorData::new(v, shape), BurnDType::F32),
            Values::F16(v) => (TensorData::new(v, shape), BurnDType::F16),
            Values::Bf16(v) => (TensorData::new(v, shape), BurnDType::BF16),
        }
    }

    /// As f32; only for values that were asked for in f32.
    pub(crate) fn into_f32(self) -> Vec<f32> {
        match self {
            Values::F32(values) => values,
            Values::F16(values) => values.into_iter().map(f16::to_f32).collect(),
            Values::Bf16(values) => values.into_iter().map(bf16::to_f32).collect(),
        }
    }
}

/// See [`Values::transposed`].
///
/// In blocks: neighbouring columns lie in one cache line, which a block uses up before it goes on.
fn transposed<T: Copy + Default + Send + Sync>(
    values: &[T],
    rows: usize,
    columns: usize,
    column: impl Fn(usize) -> usize + Sync,
) -> Vec<T> {
    const BLOCK: usize = 32;
    let mut out = vec![T::default(); values.len()];
    let matrices = out.par_chunks_mut(rows * columns).zip(values.par_chunks(rows * columns));
    matrices.for_each(|(out, matrix)| {
        out.par_chunks_mut(BLOCK * rows).enumerate().for_each(|(block, out)| {
            for first in (0..rows).step_by(BLOCK) {
                let last = (first + BLOCK).min(rows);
                for (r, out) in out.chunks_mut(rows).enumerate() {
                    let from = column(block * BLOCK + r);
                    for (row, out) in (first..last).zip(&mut out[first..last]) {
                        *out = matrix[row * columns + from];
                    }
                }
            }
        });
    });
    out
}

/// Appends to `out` in parallel, checking that every value stays finite.
fn extend<E: Sync, T: Copy + Send + Sync>(
    out: &mut Vec<T>,
    elements: &[E],
    decode: impl Fn(&E) -> f32 + Sync,
    encode: impl Fn(f32) -> T + Sync,
    value: impl Fn(&T) -> f32 + Sync,
) -> Result<(), BadElement> {
    let start = out.len();
    out.reserve(elements.len());
    let bad = out.spare_capacity_mut()[..elements.len()]
        .par_chunks_mut(CHUNK)
        .zip(elements.par_chunks(CHUNK))
        .enumerate()
        .filter_map(|(chunk, (out, elements))| {
            let mut finite = true;
            for (o, e) in out.iter_mut().zip(elements) {
                let converted = encode(decode(e));
                finite &= value(&converted).is_finite();
                o.write(converted);
            }
            if finite {
                return None;
            }
            let at = elements.iter().position(|e| !value(&encode(decode(e))).is_finite())?;
            Some((chunk * CHUNK + at, decode(&elements[at])))
        })
        .min_by_key(|(index, _)| *index);
    match bad {
        Some(bad) => Err(bad),
        None => {
            // SAFETY: the loop above has written every one of these elements.
            unsafe { out.set_len(start + elements.len()) };
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_append_and_convert() {
        let mut values = Values::with_capacity(DType::Bf16, 4);
        values.extend_f32(&[1.0, 2.5]).unwrap();
        let stored: Vec<u8> = [0.5f32, -3.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        values.extend_stored(&stored, Stored::F32).unwrap();
        assert_eq!(values.into_f32(), [1.0, 2.5, 0.5, -3.0]);
    }

    #[test]
    fn matrices_turn_and_their_rows_come_apart() {
        let (matrices, rows, columns) = (3, 37, 70);
        let n = matrices * rows * columns;
        let mut values = Values::with_capacity(DType::F32, n);
        values.extend_f32(&(0..n).map(|i| i as f32).collect::<Vec<_>>()).unwrap();
        // Even columns first, then the odd ones.
        let half = columns / 2;
        let column = |r: usize| if r < half { 2 * r } else { 2 * (r - half) + 1 };
        let turned = values.transposed(rows, columns, column).into_f32();
        for (i, got) in turned.iter().enumerate() {
            let (matrix, r, c) = (i / rows / columns, i / rows % columns, i % rows);
            assert_eq!(*got, ((matrix * rows + c) * columns + column(r)) as f32);
        }
    }

    #[test]
    fn the_first_bad_element_is_named() {
        let mut many = vec![0.0f32; 3 * CHUNK];
        many[2 * CHUNK + 7] = f32::INFINITY;
        many[CHUNK + 3] = 1e6;
        let mut f16s = Values::with_capacity(DType::F16, many.len());
        assert_eq!(f16s.extend_f32(&many), Err((CHUNK + 3, 1e6)));
        let mut f32s = Values::with_capacity(DType::F32, many.len());
        assert_eq!(f32s.extend_f32(&many), Err((2 * CHUNK + 7, f32::INFINITY)));
    }
}
