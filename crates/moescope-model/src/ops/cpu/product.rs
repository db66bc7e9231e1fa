//! Blocked matrix products on one thread; the threads are used one level up.

use gemm::Parallelism;

/// A matrix in memory: where it starts and how far its rows and columns lie apart, in elements.
#[derive(Clone, Copy)]
pub(crate) struct Matrix {
    pub(crate) start: *const f32,
    pub(crate) row: isize,
    pub(crate) column: isize,
}

impl Matrix {
    /// `[rows, width]`, row after row.
    pub(crate) fn rows(values: &[f32], width: usize) -> Self {
        Matrix { start: values.as_ptr(), row: width as isize, column: 1 }
    }

    /// The same, transposed.
    pub(crate) fn transposed(self) -> Self {
        Matrix { row: self.column, column: self.row, ..self }
    }
}

/// `out [m, n] = a [m, k] b [k, n]`, the rows of `out` being `stride` elements apart.
///
/// # Safety
///
/// `a` and `b` must lie in memory of those sizes; `out` must have room for m rows of n elements that no
/// other thread reads or writes meanwhile.
pub(crate) unsafe fn product(
    out: *mut f32,
    stride: usize,
    a: Matrix,
    b: Matrix,
    [m, n, k]: [usize; 3],
) {
    // SAFETY: the caller's promise; strides are those of the matrices.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            1,
            stride as isize,
            false,
            a.start,
            a.column,
            a.row,
            b.start,
            b.column,
            b.row,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
