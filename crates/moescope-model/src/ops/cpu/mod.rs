//! Kernels for the host's processor: plain slices in, plain slices out.
//!
//! Written as lane arrays that LLVM turns into SIMD, compiled once per instruction set and chosen at
//! run time by `pulp`. Weights may be f32, f16 or bf16 and are widened in registers, so that a
//! decode step reads each weight once, in the size it is stored in.

pub(crate) mod attention;
pub(crate) mod experts;
pub(crate) mod heads;
pub(crate) mod lanes;
pub(crate) mod linear;
pub(crate) mod math;
pub(crate) mod product;
pub(crate) mod router;
pub(crate) mod rows;
pub(crate) mod simd;
mod tile;

use burn::{
    backend::{DispatchDevice, Flex},
    tensor::{Device, Int, Tensor, TensorData},
};
use burn_flex::FlexTensor;
use half::{bf16, f16};

/// Whether tensors on this device are slices of host memory.
pub(crate) fn is_cpu(device: &Device) -> bool {
    matches!(device.as_dispatch(), DispatchDevice::Flex(_))
}

/// The host memory of a tensor, made contiguous if it is not.
pub(crate) fn host<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    // Callers have checked `is_cpu`, and a flex device only makes flex tensors.
    let Ok(tensor) = tensor.try_into_primitive::<Flex>() else { unreachable!("not a CPU tensor") };
    match tensor.is_contiguous() {
        true => tensor,
        false => tensor.to_contiguous(),
    }
}

/// The host memory of an integer tensor.
pub(crate) fn host_ints<const D: usize>(tensor: Tensor<D, Int>) -> FlexTensor {
    // As in `host`.
    let Ok(tensor) = tensor.try_into_primitive::<Flex>() else { unreachable!("not a CPU tensor") };
    match tensor.is_contiguous() {
        true => tensor,
        false => tensor.to_contiguous(),
    }
}

/// The elements of a contiguous tensor of expert ids.
pub(crate) fn i32s(tensor: &FlexTensor) -> &[i32] {
    // The router makes them in the backend's default integer type.
    tensor.as_slice().unwrap_or_else(|| unreachable!("expert ids are not contiguous i32"))
}

/// The elements of a contiguous f32 tensor.
pub(crate) fn f32s(tensor: &FlexTensor) -> &[f32] {
    // `host` made it contiguous; activations are f32 by construction.
    tensor.as_slice().unwrap_or_else(|| unreachable!("activation is not contiguous f32"))
}

/// The elements of a weight, in the type they are stored in.
pub(crate) enum WeightSlice<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

/// Looks at a contiguous weight.
pub(crate) fn weights(tensor: &FlexTensor) -> WeightSlice<'_> {
    if let Some(values) = tensor.as_slice::<f32>() {
        WeightSlice::F32(values)
    } else if let Some(values) = tensor.as_slice::<f16>() {
        WeightSlice::F16(values)
    } else if let Some(values) = tensor.as_slice::<bf16>() {
        WeightSlice::Bf16(values)
    } else {
        unreachable!("weights are contiguous f32, f16 or bf16")
    }
}

/// The elements of the pieces of one weight.
pub(crate) enum WeightSlices<'a> {
    F32(Vec<&'a [f32]>),
    F16(Vec<&'a [f16]>),
    Bf16(Vec<&'a [bf16]>),
}

/// Looks at contiguous pieces of a weight, all of one type.
pub(crate) fn pieces(tensors: &[FlexTensor]) -> WeightSlices<'_> {
    let f32s = || tensors.iter().map(FlexTensor::as_slice).collect::<Option<Vec<_>>>();
    let f16s = || tensors.iter().map(FlexTensor::as_slice).collect::<Option<Vec<_>>>();
    let bf16s = || tensors.iter().map(FlexTensor::as_slice).collect::<Option<Vec<_>>>();
    (f32s().map(WeightSlices::F32))
        .or_else(|| f16s().map(WeightSlices::F16))
        .or_else(|| bf16s().map(WeightSlices::Bf16))
        .unwrap_or_else(|| unreachable!("the pieces of a weight are contiguous and of one type"))
}

/// A tensor that owns `values`.
pub(crate) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_primitive::<Flex>(FlexTensor::from_data(TensorData::new(values, shape)))
}

/// An integer tensor that owns `values`.
pub(crate) fn int_tensor<const D: usize>(values: Vec<i32>, shape: [usize; D]) -> Tensor<D, Int> {
    Tensor::from_primitive::<Flex>(FlexTensor::from_data(TensorData::new(values, shape)))
}
