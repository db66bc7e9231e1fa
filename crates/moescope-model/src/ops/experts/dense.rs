//! Every expert on every token, weighted by a matrix that is zero where an expert was not chosen.

use burn::tensor::{DType, IndexingUpdateOp, Tensor};

use super::Experts;
use crate::ops::{linear::linear, router::Choice};

pub(super) fn forward(experts: &Experts, x: Tensor<2>, choice: &Choice) -> Tensor<2> {
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
    for expert in 0..e {
        let gate_up = experts.gate_up.clone().slice(expert..expert + 1).reshape([both, hidden]);
        let down = experts.down.clone().slice(expert..expert + 1).reshape([hidden, inner]);
        let act = experts.activation.gated(linear(x.clone(), &gate_up));
        sum = sum + linear(act, &down) * all.clone().slice([0..t, expert..expert + 1]);
    }
    sum
}
