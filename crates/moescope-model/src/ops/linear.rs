//! Products with weight matrices.

use burn::tensor::{DType, Tensor};

use super::{
    cpu::{self, WeightSlice},
    gpu,
    pieces::Pieces,
};

/// A projection with or without a bias.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[O, I]`, in the compute type.
    pub weight: Pieces<2>,
    /// `[O]`, f32.
    pub bias: Option<Tensor<1>>,
}

impl Linear {
    /// A projection without a bias.
    pub fn new(weight: impl Into<Pieces<2>>) -> Self {
        Linear { weight: weight.into(), bias: None }
    }

    /// `x [T, I] x weight^T + bias -> [T, O]`, accumulated in f32.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        with_bias(x, &self.weight, self.bias.as_ref())
    }
}

/// `x [T, I] x weight [O, I]^T -> [T, O]`, accumulated in f32.
pub fn linear(x: Tensor<2>, weight: &Pieces<2>) -> Tensor<2> {
    with_bias(x, weight, None)
}

fn with_bias(x: Tensor<2>, weight: &Pieces<2>, bias: Option<&Tensor<1>>) -> Tensor<2> {
    if let Some(weight) = weight.whole() {
        return project(x, weight, bias);
    }
    // Rows of the weight are columns of the result.
    let parts = weight.iter().map(|(_, piece)| project(x.clone(), piece, None)).collect();
    let out = Tensor::cat(parts, 1);
    match bias {
        Some(bias) => out + bias.clone().unsqueeze(),
        None => out,
    }
}

fn project(x: Tensor<2>, weight: &Tensor<2>, bias: Option<&Tensor<1>>) -> Tensor<2> {
    let [t, inner] = x.dims();
    let [o, _] = weight.dims();
    if cpu::is_cpu(&x.device()) {
        let (x, weight) = (cpu::host(x), cpu::host(weight.clone()));
        let x = cpu::f32s(&x);
        let mut out = match cpu::weights(&weight) {
            WeightSlice::F32(w) => cpu::linear::linear(x, w, inner),
            WeightSlice::F16(w) => cpu::linear::linear(x, w, inner),
            WeightSlice::Bf16(w) => cpu::linear::linear(x, w, inner),
        };
        if let Some(bias) = bias {
            let bias = cpu::host(bias.clone());
            cpu::rows::add_to_rows(&mut out, cpu::f32s(&bias));
        }
        return cpu::tensor(out, [t, o]);
    }
    let out = match weight.dtype() {
        DType::F32 => x.matmul(weight.clone().transpose()),
        _ => gpu::project_rows(narrowed(x, weight.dtype()), weight),
    };
    match bias {
        Some(bias) => out + bias.clone().unsqueeze(),
        None => out,
    }
}

/// `x` in the type of a weight it is multiplied with, so that a GPU's matrix units apply and no weight is
/// converted. What lies beyond the range of f16 becomes its largest number, not infinite.
fn narrowed<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    let largest = f32::from(half::f16::MAX);
    let x = if dtype == DType::F16 { x.clamp(-largest, largest) } else { x };
    x.cast(dtype)
}

/// Each head of `x [T, N * I]` through a matrix of its own, `weight [N, O, I]`: `[T, N * O]`.
pub fn linear_by_head(x: Tensor<2>, weight: &Pieces<3>) -> Tensor<2> {
    if let Some(weight) = weight.whole() {
        return project_by_head(x, weight);
    }
    let ([t, _], [_, _, inner]) = (x.dims(), weight.dims());
    let of_piece = |(first, piece): (usize, &Tensor<3>)| {
        let columns = first * inner..(first + piece.dims()[0]) * inner;
        project_by_head(x.clone().slice([0..t, columns]), piece)
    };
    Tensor::cat(weight.iter().map(of_piece).collect(), 1)
}

fn project_by_head(x: Tensor<2>, weight: &Tensor<3>) -> Tensor<2> {
    let [t, _] = x.dims();
    let [heads, o, inner] = weight.dims();
    if cpu::is_cpu(&x.device()) {
        let (x, weight) = (cpu::host(x), cpu::host(weight.clone()));
        let x = cpu::f32s(&x);
        let out = match cpu::weights(&weight) {
            WeightSlice::F32(w) => cpu::linear::by_head(x, w, heads, inner),
            WeightSlice::F16(w) => cpu::linear::by_head(x, w, heads, inner),
            WeightSlice::Bf16(w) => cpu::linear::by_head(x, w, heads, inner),
        };
        return cpu::tensor(out, [t, heads * o]);
    }
    let x = narrowed(x, weight.dtype()).reshape([t, heads, inner]).swap_dims(0, 1);
    let out = x.matmul(weight.clone().swap_dims(1, 2)).cast(DType::F32);
    out.swap_dims(0, 1).reshape([t, heads * o])
}
