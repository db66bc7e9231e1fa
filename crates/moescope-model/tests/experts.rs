//! The implementations of the experts layer against a plain, slow one.

use burn::tensor::{DType as BurnDType, Device, DeviceKind, Int, Tensor, TensorData};
use half::bf16;
use moescope_model::{
    MoeImpl,
    ops::{
        activation::Activation,
        experts::{Experts, IMPLEMENTATIONS},
        router::{Choice, PerExpert, RouterRule, route},
    },
};
use proptest::prelude::*;

use crate::common::{assert_close, floats};

#[derive(Clone, Copy, Debug)]
struct Sizes {
    tokens: usize,
    experts: usize,
    top_k: usize,
    hidden: usize,
    inner: usize,
}

fn pseudo(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040);
            // Exact in bfloat16, so that one reference serves every weight type.
            bf16::from_f32(((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 2.0).to_f32()
        })
        .collect()
}

/// One product at a time, in f64.
fn plain(s: Sizes, x: &[f32], logits: &[f32], gate_up: &[f32], down: &[f32]) -> Vec<f32> {
    let mut out = Vec::new();
    for t in 0..s.tokens {
        let row = &logits[t * s.experts..(t + 1) * s.experts];
        let mut order: Vec<usize> = (0..s.experts).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        let chosen = &order[..s.top_k];
        let sum: f64 = chosen.iter().map(|&e| f64::from(row[e]).exp()).sum();
        let mut y = vec![0.0f64; s.hidden];
        for &e in chosen {
            let dot = |w: &[f32], v: &[f64]| -> f64 {
                w.iter().zip(v).map(|(w, v)| f64::from(*w) * v).sum()
            };
            let xt: Vec<f64> =
                x[t * s.hidden..(t + 1) * s.hidden].iter().map(|&v| f64::from(v)).collect();
            let rows = &gate_up[e * 2 * s.inner * s.hidden..(e + 1) * 2 * s.inner * s.hidden];
            let act: Vec<f64> = (0..s.inner)
                .map(|i| {
                    let gate = dot(&rows[i * s.hidden..(i + 1) * s.hidden], &xt);
                    let up = dot(&rows[(s.inner + i) * s.hidden..][..s.hidden], &xt);
                    gate / (1.0 + (-gate).exp()) * up
                })
                .collect();
            for (h, y) in y.iter_mut().enumerate() {
                let row = &down[(e * s.hidden + h) * s.inner..][..s.inner];
                *y += f64::from(logits[t * s.experts + e]).exp() / sum * dot(row, &act);
            }
        }
        out.extend(y.iter().map(|&v| v as f32));
    }
    out
}

fn check(s: Sizes, seed: u64, device: &Device, dtype: BurnDType, tolerance: f32) {
    let x = pseudo(s.tokens * s.hidden, seed);
    // Distinct logits: ties would make the choice ambiguous.
    let logits: Vec<f32> = pseudo(s.tokens * s.experts, seed ^ 2)
        .iter()
        .enumerate()
        .map(|(i, l)| l + (i % s.experts) as f32 * 1e-3)
        .collect();
    let gate_up = pseudo(s.experts * 2 * s.inner * s.hidden, seed ^ 3);
    let down = pseudo(s.experts * s.hidden * s.inner, seed ^ 4);
    let want = plain(s, &x, &logits, &gate_up, &down);
    let weight = |values: &[f32], shape: [usize; 3]| {
        Tensor::<3>::from_data(TensorData::new(values.to_vec(), shape), device).cast(dtype)
    };
    let matrix = |values: &[f32], shape: [usize; 2]| {
        Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), device)
    };
    let experts = Experts {
        gate_up: weight(&gate_up, [s.experts, 2 * s.inner, s.hidden]),
        down: weight(&down, [s.experts, s.hidden, s.inner]),
        biases: None,
        activation: Activation::Silu,
    };
    let rule = RouterRule::softmax_renormalised(s.top_k);
    let choice = route(matrix(&logits, [s.tokens, s.experts]), rule, PerExpert::default());
    for (name, implementation) in IMPLEMENTATIONS {
        let x = matrix(&x, [s.tokens, s.hidden]);
        let got = floats(experts.forward(x, &choice, *implementation, false).sum);
        assert_close(&got, &want, tolerance, &format!("{name} {s:?} {dtype:?}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_implementation_on_flex(
        tokens in prop_oneof![1usize..6, 6usize..70],
        (experts, top_k) in (1usize..20).prop_flat_map(|e| (Just(e), 1..=e)),
        hidden in 1usize..70,
        inner in 1usize..40,
        seed: u64,
    ) {
        let s = Sizes { tokens, experts, top_k, hidden, inner };
        for dtype in [BurnDType::F32, BurnDType::BF16, BurnDType::F16] {
            check(s, seed, &Device::flex(), dtype, 1e-2);
        }
    }
}

#[test]
fn large_layers_are_split_over_threads_without_loss() {
    for tokens in [1, 2, 40] {
        let s = Sizes { tokens, experts: 6, top_k: 3, hidden: 301, inner: 257 };
        check(s, 11, &Device::flex(), BurnDType::F32, 2e-2);
    }
}

#[test]
fn every_implementation_on_wgpu() {
    let device = Device::wgpu(DeviceKind::DefaultDevice);
    for (tokens, experts, top_k, hidden, inner) in [
        (1, 4, 1, 16, 8),
        (1, 8, 8, 24, 12),
        (3, 5, 2, 33, 17),
        (37, 6, 3, 20, 10),
        (2, 1, 1, 8, 8),
    ] {
        let s = Sizes { tokens, experts, top_k, hidden, inner };
        check(s, 5, &device, BurnDType::F32, 1e-2);
    }
}

#[test]
fn equal_probabilities_go_to_the_lowest_index() {
    let logits = Tensor::<2>::zeros([2, 6], &Device::flex());
    let choice = route(logits, RouterRule::softmax_renormalised(3), PerExpert::default());
    let Choice { experts, weights, .. } = choice;
    assert_eq!(ints(experts), [0, 1, 2, 0, 1, 2]);
    assert_close(&floats(weights), &[1.0 / 3.0; 6], 1e-6, "weights");
}

#[test]
fn weights_without_renormalisation_are_probabilities() {
    let logits = Tensor::<2>::from_floats([[2.0, 0.0, 1.0]], &Device::flex());
    let choice = route(logits, RouterRule::softmax(2), PerExpert::default());
    assert_eq!(ints(choice.experts), [0, 2]);
    let sum = 2f32.exp() + 1.0 + 1f32.exp();
    let want = [2f32.exp() / sum, 1f32.exp() / sum];
    assert_close(&floats(choice.weights), &want, 1e-6, "weights");
}

#[test]
fn names_of_implementations_round_trip() {
    for implementation in [MoeImpl::Selected, MoeImpl::Dense] {
        assert_eq!(implementation.as_str().parse::<MoeImpl>().unwrap(), implementation);
    }
    assert!("fast".parse::<MoeImpl>().unwrap_err().contains("selected, dense"));
}

fn ints(tensor: Tensor<2, Int>) -> Vec<i64> {
    tensor.into_data_dtype(BurnDType::I64).try_into_vec().unwrap()
}
