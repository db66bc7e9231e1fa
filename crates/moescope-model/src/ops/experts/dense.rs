//! Every expert on every token, weighted by a matrix that is zero where an expert was not chosen.

use burn::tensor::{DType, IndexingUpdateOp, Tensor};

use super::{Experts, Mixture};
use crate::ops::{linear::Linear, router::Choice};

pub(super) fn forward(
    experts: &Experts,
    x: Tensor<2>,
    choice: &Choice,
    output_norms: bool,
) -> Mixture {
    let [e, both, hidden] = experts.gate_up.dims();
    let [t, _] = x.dims();
    let inner = both / 2;
    // `[T, E]`: the weight of every expert for every token.
    let all = Tensor::zeros([t, e], &x.device()).scatter(
        1,
        choice.experts.clone(),
        choice.weights.clone(),
        IndexingUpdateOp::Add,
    );
    let mut sum = Tensor::zeros([t, hidden], (&x.device(), DType::F32));
    let mut norms = Vec::new();
    for expert in 0..e {
        let one = expert..expert + 1;
        let bias = |of: fn(&super::Biases) -> &Tensor<2>, width: usize| {
            let biases = experts.biases.as_ref()?;
            Some(of(biases).clone().slice(one.clone()).reshape([width]))
        };
        let gate_up = Linear {
            weight: experts.gate_up.row(expert).reshape([both, hidden]).into(),
            bias: bias(|biases| &biases.gate_up, both),
        };
        let down = Linear {
            weight: experts.down.row(expert).reshape([hidden, inner]).into(),
            bias: bias(|biases| &biases.down, hidden),
        };
        let out = down.forward(experts.activation.gated(gate_up.forward(x.clone())));
        if output_norms {
            norms.push(out.clone().square().sum_dim(1).sqrt());
        }
        sum = sum + out * all.clone().slice([0..t, one.clone()]);
    }
    let output_norms =
        output_norms.then(|| Tensor::cat(norms, 1).gather(1, choice.experts.clone()));
    Mixture { sum, output_norms }
}
