//! RMS norm of rows, with what follows it: a residual sum and a scale.

use burn::backend::TensorMetadata;
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{
    cubes::{UNITS, cube_index, cubes, sum_of_units},
    empty,
};

/// What is done to each row.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct NormCall {
    /// Added to the mean square.
    pub(in crate::ops) eps: f32,
    /// Multiplies the result.
    pub(in crate::ops) scale: f32,
    /// Whether there is a weight per column.
    pub(in crate::ops) weighted: bool,
    /// Whether there is a residual to add.
    pub(in crate::ops) added: bool,
}

/// One cube: one row.
#[cube(launch)]
fn norm_kernel(
    x: &Tensor<f32>,
    weight: &Tensor<f32>,
    residual: &Tensor<f32>,
    out: &mut Tensor<f32>,
    rows: u32,
    width: u32,
    eps: f32,
    scale: f32,
    #[comptime] weighted: bool,
    #[comptime] added: bool,
) {
    let row = cube_index();
    if row >= rows {
        terminate!();
    }
    let from = (row * width) as usize;
    let mut partial = 0.0f32;
    let mut i = UNIT_POS_X;
    while i < width {
        let value = x[from + i as usize];
        partial += value * value;
        i += UNITS;
    }
    let inverse = 1.0f32 / (sum_of_units(partial) / f32::cast_from(width) + eps).sqrt();
    let mut i = UNIT_POS_X;
    while i < width {
        let at = from + i as usize;
        let mut value = x[at] * inverse;
        if comptime!(weighted) {
            value *= weight[i as usize];
        }
        if comptime!(added) {
            value += residual[at];
        }
        out[at] = value * scale;
        i += UNITS;
    }
}

pub(super) fn launch(
    x: CubeTensor,
    weight: CubeTensor,
    residual: CubeTensor,
    call: NormCall,
) -> CubeTensor {
    let (x, weight, residual) =
        (into_contiguous(x), into_contiguous(weight), into_contiguous(residual));
    let (rows, width) = (x.shape()[0], x.shape()[1]);
    let out = empty(&x, [rows, width], x.dtype);
    norm_kernel::launch(
        &x.client.clone(),
        cubes(rows),
        CubeDim::new_1d(UNITS),
        x.into_tensor_arg(),
        weight.into_tensor_arg(),
        residual.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        rows as u32,
        width as u32,
        call.eps,
        call.scale,
        call.weighted,
        call.added,
    );
    out
}
