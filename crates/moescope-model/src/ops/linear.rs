//! Products with weight matrices.

use burn::tensor::{DType, Tensor};

use super::cpu::{self, WeightSlice};

/// `x [T, I] x weight [O, I]^T -> [T, O]`, accumulated in f32.
pub fn linear(x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    let [t, inner] = x.dims();
    let [o, _] = weight.dims();
    if cpu::is_cpu(&x.device()) {
        let (x, weight) = (cpu::host(x), cpu::host(weight.clone()));
        let x = cpu::f32s(&x);
        let out = match cpu::weights(&weight) {
            WeightSlice::F32(w) => cpu::linear::linear(x, w, inner),
            WeightSlice::F16(w) => cpu::linear::linear(x, w, inner),
            WeightSlice::Bf16(w) => cpu::linear::linear(x, w, inner),
        };
        return cpu::tensor(out, [t, o]);
    }
    // In the weight's type, so that the GPU's matrix units apply and no weight is converted.
    x.cast(weight.dtype()).matmul(weight.clone().transpose()).cast(DType::F32)
}
