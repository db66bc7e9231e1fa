//! Made-up weights and activations: times of kernels do not depend on the values, only routing does.

use burn::tensor::{DType, Device, Tensor, TensorData};
use moescope_analysis::rng::Rng;
use moescope_model::ops::{
    activation::Activation,
    experts::Experts,
    router::{Choice, PerExpert, RouterRule, route},
};

/// Normal numbers, `deviation` wide, in f32.
pub fn normal<const D: usize>(shape: [usize; D], deviation: f64, seed: u64) -> Tensor<D> {
    let mut rng = Rng::new(seed);
    let values = (0..shape.iter().product::<usize>()).map(|_| (rng.normal() * deviation) as f32);
    let data = TensorData::new(values.collect::<Vec<f32>>(), shape);
    Tensor::from_data(data, &Device::flex())
}

/// Sizes of an experts layer.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Routed experts, E.
    pub experts: usize,
    /// Experts per token, K.
    pub top_k: usize,
    /// Width of the residual stream, H.
    pub hidden: usize,
    /// Width of an expert, I.
    pub inner: usize,
}

impl Sizes {
    /// Weights of the layer in `dtype`.
    pub fn weights(&self, dtype: DType) -> Experts {
        let Sizes { experts, hidden, inner, .. } = *self;
        let wide = 1.0 / (hidden as f64).sqrt();
        Experts {
            gate_up: normal([experts, 2 * inner, hidden], wide, 1).cast(dtype).into(),
            down: normal([experts, hidden, inner], wide, 2).cast(dtype).into(),
            biases: None,
            activation: Activation::GeluTanh,
        }
    }

    /// Router logits for `tokens` tokens, `[T, E]`.
    pub fn logits(&self, tokens: usize) -> Tensor<2> {
        normal([tokens, self.experts], 1.0, 3)
    }

    /// The experts of `tokens` tokens, spread nearly evenly.
    pub fn choice(&self, tokens: usize) -> Choice {
        let rule = RouterRule::softmax_renormalised(self.top_k);
        route(self.logits(tokens), rule, PerExpert::default())
    }
}
