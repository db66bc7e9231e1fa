//! What comes after the output head.

use burn::tensor::{DType, Int, Tensor, TensorData, activation};

use super::cpu;

/// `cap * tanh(x / cap)`, elementwise.
pub fn soft_cap(x: Tensor<2>, cap: f32) -> Tensor<2> {
    if cpu::is_cpu(&x.device()) {
        let shape = x.dims();
        let mut values = match cpu::host(x).into_data().try_into_vec::<f32>() {
            Ok(values) => values,
            Err(_) => unreachable!("logits are f32"),
        };
        cpu::rows::soft_cap(&mut values, cap);
        return cpu::tensor(values, shape);
    }
    (x / cap).tanh() * cap
}

/// Log-probability, in nats, of one target per row of `logits [T, V]`: `[T]`.
pub fn log_prob(logits: Tensor<2>, targets: &[u32]) -> Tensor<1> {
    let [t, vocab] = logits.dims();
    let device = logits.device();
    if cpu::is_cpu(&device) {
        let logits = cpu::host(logits);
        return cpu::tensor(cpu::rows::log_prob(cpu::f32s(&logits), vocab, targets), [t]);
    }
    let targets: Vec<i32> = targets.iter().map(|&t| t as i32).collect();
    let targets =
        Tensor::<2, Int>::from_data(TensorData::new(targets, [t, 1]), (&device, DType::I32));
    activation::log_softmax(logits, 1).gather(1, targets).reshape([t])
}

/// Log-probability of one target under one row of logits on the host, nats.
pub fn log_prob_of(row: &[f32], target: u32) -> f32 {
    cpu::rows::log_prob(row, row.len(), &[target])[0]
}
