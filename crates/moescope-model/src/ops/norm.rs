//! RMS normalisation (B. Zhang and R. Sennrich, arXiv 1910.07467), always in f32.

use burn::tensor::Tensor;

use super::{cpu, gpu};

/// `x / sqrt(mean(x^2) + eps) * weight` over the last dimension.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    /// `[H]`, f32; `None` normalises without a scale.
    pub weight: Option<Tensor<1>>,
    /// Added to the mean square.
    pub eps: f32,
}

impl RmsNorm {
    /// A norm with a scale.
    pub fn new(weight: Tensor<1>, eps: f32) -> Self {
        RmsNorm { weight: Some(weight), eps }
    }

    /// Normalises the rows of `x`: `[T, H] -> [T, H]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        if cpu::is_cpu(&x.device()) {
            let shape = x.dims();
            let x = cpu::host(x);
            let weight = self.weight.clone().map(cpu::host);
            let weight = weight.as_ref().map(cpu::f32s);
            let out = cpu::rows::rms_norm(cpu::f32s(&x), shape[1], weight, self.eps);
            return cpu::tensor(out, shape);
        }
        gpu::norm_rows(x, self.weight.as_ref(), None, self.eps, 1.0)
    }

    /// `(residual + norm(x)) * scale`: the end of a block, `[T, H]` all.
    pub fn add_to(&self, residual: Tensor<2>, x: Tensor<2>, scale: f32) -> Tensor<2> {
        if !cpu::is_cpu(&x.device()) {
            return gpu::norm_rows(x, self.weight.as_ref(), Some(residual), self.eps, scale);
        }
        if let Some(weight) = &self.weight {
            let shape = x.dims();
            let (residual, x) = (cpu::host(residual), cpu::host(x));
            let weight = cpu::host(weight.clone());
            let (residual, x, weight) = (cpu::f32s(&residual), cpu::f32s(&x), cpu::f32s(&weight));
            let out = cpu::rows::add_rms_norm(residual, x, shape[1], weight, self.eps, scale);
            return cpu::tensor(out, shape);
        }
        let sum = residual + self.forward(x);
        if scale == 1.0 { sum } else { sum * scale }
    }
}
