//! The implementations of the experts layer against a plain, slow one.

use std::collections::BTreeSet;

use burn::tensor::{DType as BurnDType, Device, DeviceKind, Int, Tensor, TensorData};
use half::bf16;
use moescope_model::{
    MoeImpl,
    ops::{
        activation::Activation,
        experts::{Biases, Experts, IMPLEMENTATIONS},
        on_cpu,
        pieces::Pieces,
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

/// Weights of a layer and what goes in.
struct Inputs {
    x: Vec<f32>,
    logits: Vec<f32>,
    gate_up: Vec<f32>,
    down: Vec<f32>,
    /// Of gate and up projections, and of down projections.
    biases: Option<(Vec<f32>, Vec<f32>)>,
    activation: Activation,
}

impl Inputs {
    fn new(s: Sizes, seed: u64, activation: Activation, biases: bool) -> Self {
        // Distinct logits: ties would make the choice ambiguous.
        let logits = pseudo(s.tokens * s.experts, seed ^ 2);
        let logits = logits.iter().enumerate().map(|(i, l)| l + (i % s.experts) as f32 * 1e-3);
        Inputs {
            x: pseudo(s.tokens * s.hidden, seed),
            logits: logits.collect(),
            gate_up: pseudo(s.experts * 2 * s.inner * s.hidden, seed ^ 3),
            down: pseudo(s.experts * s.hidden * s.inner, seed ^ 4),
            biases: biases.then(|| {
                let (both, out) = (s.experts * 2 * s.inner, s.experts * s.hidden);
                (pseudo(both, seed ^ 5), pseudo(out, seed ^ 6))
            }),
            activation,
        }
    }
}

/// Sums and norms of outputs, one product at a time, in f64.
fn plain(s: Sizes, inputs: &Inputs) -> (Vec<f32>, Vec<f32>) {
    let (mut out, mut norms) = (Vec::new(), Vec::new());
    let dot =
        |w: &[f32], v: &[f64]| -> f64 { w.iter().zip(v).map(|(w, v)| f64::from(*w) * v).sum() };
    for t in 0..s.tokens {
        let row = &inputs.logits[t * s.experts..(t + 1) * s.experts];
        let mut order: Vec<usize> = (0..s.experts).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        let chosen = &order[..s.top_k];
        let sum: f64 = chosen.iter().map(|&e| f64::from(row[e]).exp()).sum();
        let x = &inputs.x[t * s.hidden..(t + 1) * s.hidden];
        let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        let mut y = vec![0.0f64; s.hidden];
        for &e in chosen {
            let both = |i: usize| {
                let i = e * 2 * s.inner + i;
                let bias = inputs.biases.as_ref().map_or(0.0, |(b, _)| f64::from(b[i]));
                dot(&inputs.gate_up[i * s.hidden..(i + 1) * s.hidden], &x) + bias
            };
            let act: Vec<f64> = (0..s.inner)
                .map(|i| gated(inputs.activation, both(i), both(s.inner + i)))
                .collect();
            let result: Vec<f64> = (e * s.hidden..(e + 1) * s.hidden)
                .map(|i| {
                    let bias = inputs.biases.as_ref().map_or(0.0, |(_, b)| f64::from(b[i]));
                    dot(&inputs.down[i * s.inner..(i + 1) * s.inner], &act) + bias
                })
                .collect();
            let weight = f64::from(row[e]).exp() / sum;
            y.iter_mut().zip(&result).for_each(|(y, r)| *y += weight * r);
            norms.push(result.iter().map(|r| r * r).sum::<f64>().sqrt() as f32);
        }
        out.extend(y.iter().map(|&v| v as f32));
    }
    (out, norms)
}

fn gated(activation: Activation, gate: f64, up: f64) -> f64 {
    match activation {
        Activation::Silu => gate / (1.0 + (-gate).exp()) * up,
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044_715 * gate.powi(3));
            0.5 * gate * (1.0 + inner.tanh()) * up
        }
        Activation::ClampedSwish { alpha, limit } => {
            let (alpha, limit) = (f64::from(alpha), f64::from(limit));
            let gate = gate.min(limit);
            gate / (1.0 + (-alpha * gate).exp()) * (up.clamp(-limit, limit) + 1.0)
        }
    }
}

/// What gpt-oss does, with a limit that bites.
const CLAMPED: Activation = Activation::ClampedSwish { alpha: 1.702, limit: 0.8 };

fn check(s: Sizes, inputs: &Inputs, device: &Device, dtype: BurnDType, tolerance: f32) {
    // Whole, one by one, and in groups of which the last is smaller.
    let groups = [s.experts, s.experts.div_ceil(2)];
    let single = on_cpu(device).then_some(1);
    for each in groups.into_iter().chain(single).collect::<BTreeSet<_>>() {
        check_in_groups(s, inputs, device, dtype, tolerance, each);
    }
}

fn check_in_groups(
    s: Sizes,
    inputs: &Inputs,
    device: &Device,
    dtype: BurnDType,
    tolerance: f32,
    each: usize,
) {
    let (want, want_norms) = plain(s, inputs);
    let weight = |values: &[f32], shape: [usize; 3]| {
        let whole =
            Tensor::<3>::from_data(TensorData::new(values.to_vec(), shape), device).cast(dtype);
        let mut groups = whole.split(each, 0).into_iter();
        Pieces::new(groups.next().unwrap(), groups.collect())
    };
    let matrix = |values: &[f32], shape: [usize; 2]| {
        Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), device)
    };
    let experts = Experts {
        gate_up: weight(&inputs.gate_up, [s.experts, 2 * s.inner, s.hidden]),
        down: weight(&inputs.down, [s.experts, s.hidden, s.inner]),
        biases: inputs.biases.as_ref().map(|(gate_up, down)| Biases {
            gate_up: matrix(gate_up, [s.experts, 2 * s.inner]),
            down: matrix(down, [s.experts, s.hidden]),
        }),
        activation: inputs.activation,
    };
    let rule = RouterRule::softmax_renormalised(s.top_k);
    let logits = matrix(&inputs.logits, [s.tokens, s.experts]);
    let choice = route(logits, rule, PerExpert::default());
    for (name, implementation) in IMPLEMENTATIONS {
        for norms in [false, true] {
            let x = matrix(&inputs.x, [s.tokens, s.hidden]);
            let got = experts.forward(x, &choice, *implementation, norms);
            let what = format!("{name} {s:?} {dtype:?} {:?}", inputs.activation);
            assert_close(&floats(got.sum), &want, tolerance, &what);
            assert_eq!(got.output_norms.is_some(), norms);
            if let Some(norms) = got.output_norms {
                assert_close(&floats(norms), &want_norms, tolerance, &format!("norms {what}"));
            }
        }
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
        activation in prop_oneof![
            Just(Activation::Silu), Just(Activation::GeluTanh), Just(CLAMPED),
        ],
        biases: bool,
    ) {
        let s = Sizes { tokens, experts, top_k, hidden, inner };
        let inputs = Inputs::new(s, seed, activation, biases);
        for dtype in [BurnDType::F32, BurnDType::BF16, BurnDType::F16] {
            check(s, &inputs, &Device::flex(), dtype, 1e-2);
        }
    }
}

#[test]
fn large_layers_are_split_over_threads_without_loss() {
    for tokens in [1, 2, 40] {
        let s = Sizes { tokens, experts: 6, top_k: 3, hidden: 301, inner: 257 };
        for biases in [false, true] {
            let inputs = Inputs::new(s, 11, Activation::Silu, biases);
            check(s, &inputs, &Device::flex(), BurnDType::F32, 2e-2);
        }
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
        let clamped = tokens != 1;
        let activation = if clamped { CLAMPED } else { Activation::Silu };
        let inputs = Inputs::new(s, 5, activation, clamped);
        check(s, &inputs, &device, BurnDType::F32, 1e-2);
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
