//! Against an independent implementation: transformers 5.23.0, PyTorch, float32, CPU.

use std::collections::BTreeSet;

use burn::tensor::{Device, DeviceKind};
use moescope_model::{DType, MoeImpl, MoeModel};

use crate::common::{
    Everything, Expected, Routed, assert_close, fixture, forward_all, generate, load_as, load_cut,
    load_f32, tiny,
};

/// Scores closer than this may rank either way.
const TIE: f32 = 1e-5;

/// Where the test bodies run, and how close they must come.
struct Bench {
    device: Device,
    tolerance: f32,
    weights: f32,
}

fn flex() -> Bench {
    Bench { device: Device::flex(), tolerance: 2e-4, weights: 1e-5 }
}

/// An adapter of any kind: on machines without a GPU a software one.
fn wgpu() -> Bench {
    Bench { device: Device::wgpu(DeviceKind::DefaultDevice), tolerance: 2e-3, weights: 1e-5 }
}

fn family(folder: &str, bench: &Bench, moe_impl: MoeImpl) {
    check(folder, bench, load_f32(&fixture(folder), &bench.device, moe_impl));
}

/// The same with the largest weights in so many tensors.
fn cut(folder: &str, bench: &Bench, parts: u64) {
    check(folder, bench, load_cut(&fixture(folder), &bench.device, parts));
}

fn check(folder: &str, bench: &Bench, model: Box<dyn MoeModel>) {
    let expected = Expected::read(folder);
    let (input, shape) = expected.ints("input_ids");
    let mut seen = Everything::default();
    let logits = forward_all(model.as_ref(), &input, shape[0], &mut seen);
    assert_close(&logits, &expected.floats("logits"), bench.tolerance, "logits");
    assert_eq!(seen.hidden.len(), model.spec().layers + 1);
    for (i, hidden) in seen.hidden.iter().enumerate() {
        let name = format!("hidden_states.{i}");
        assert_close(hidden, &expected.floats(&name), bench.tolerance, &name);
    }
    routing(&seen.routed, &expected, "", bench, model.as_ref());
    let (prompt, _) = expected.ints("generate.prompt_ids");
    let (output, _) = expected.ints("generate.output_ids");
    assert_eq!(generate(model.as_ref(), &prompt, output.len()), output, "greedy tokens");
}

/// Same experts in the same order, near-ties as sets; same weights.
fn routing(
    routed: &[Routed],
    expected: &Expected,
    prefix: &str,
    bench: &Bench,
    model: &dyn MoeModel,
) {
    assert_eq!(routed.len(), model.spec().moe.len());
    for routed in routed {
        let name = format!("{prefix}layers.{}.top_k", routed.layer);
        let (ids, _) = expected.ints(&format!("{name}_index"));
        let weights = expected.floats(&format!("{name}_weights"));
        assert_eq!(routed.experts.len(), ids.len());
        let k = routed.k;
        for (t, (got, want)) in routed.experts.chunks(k).zip(ids.chunks(k)).enumerate() {
            let scores = &routed.scores[t * routed.e..(t + 1) * routed.e];
            let pairs = |ids: &[u32], weights: &[f32]| {
                let weights = &weights[t * k..(t + 1) * k];
                let mut pairs: Vec<(u32, f32)> =
                    ids.iter().copied().zip(weights.iter().copied()).collect();
                if routed.unsorted {
                    pairs.sort_by(|a, b| {
                        scores[b.0 as usize].total_cmp(&scores[a.0 as usize]).then(a.0.cmp(&b.0))
                    });
                }
                pairs.into_iter().unzip::<u32, f32, Vec<u32>, Vec<f32>>()
            };
            let (got, got_weights) = pairs(got, &routed.weights);
            let (want, want_weights) = pairs(want, &weights);
            if got == want {
                let what = format!("{name} token {t}");
                assert_close(&got_weights, &want_weights, bench.weights, &what);
                continue;
            }
            let set = |ids: &[u32]| ids.iter().copied().collect::<BTreeSet<u32>>();
            for id in set(&got).symmetric_difference(&set(&want)) {
                let kth = scores[*got.last().unwrap() as usize];
                let off = (scores[*id as usize] - kth).abs();
                assert!(off < TIE, "{name} token {t}: {got:?}, expected {want:?}, {off} apart");
            }
            for (got, want) in got.iter().zip(&want) {
                let apart = (scores[*got as usize] - scores[*want as usize]).abs();
                assert!(apart < TIE, "{name} token {t}: rank of {got} and {want}, {apart} apart");
            }
        }
    }
}

/// Every family with experts, and per-layer embeddings.
const CUT_FOLDERS: &[&str] = &[
    "gemma4-moe",
    "gemma4-ple-kvshared",
    "deepseek-v3",
    "gpt-oss",
    "glm4-moe",
    "qwen3-moe",
    "olmoe",
    "mixtral",
];

fn bundled(bench: &Bench, dtype: DType, tolerance: f32) {
    let expected = Expected::read("tiny-gemma4-moe");
    let model = load_as(&tiny(), &bench.device, MoeImpl::Selected, dtype);
    for text in 0..3 {
        let prefix = format!("{text}.");
        let (input, _) = expected.ints(&format!("{prefix}input_ids"));
        let mut seen = Everything::default();
        let logits = forward_all(model.as_ref(), &input, 1, &mut seen);
        let want = expected.floats(&format!("{prefix}logits"));
        assert_close(&logits, &want, tolerance, &format!("text {text} logits"));
        routing(&seen.routed, &expected, &prefix, bench, model.as_ref());
    }
}

#[test]
fn gemma4_moe_on_flex() {
    family("gemma4-moe", &flex(), MoeImpl::Selected);
}

#[test]
fn gemma4_moe_dense_implementation_on_flex() {
    family("gemma4-moe", &flex(), MoeImpl::Dense);
}

#[test]
fn gemma4_dense_on_flex() {
    family("gemma4-dense", &flex(), MoeImpl::Selected);
}

#[test]
fn gemma4_per_layer_embeddings_and_shared_kv_on_flex() {
    family("gemma4-ple-kvshared", &flex(), MoeImpl::Selected);
}

#[test]
fn gemma4_sharded_multimodal_bfloat16_on_flex() {
    family("gemma4-moe-multimodal-sharded", &flex(), MoeImpl::Selected);
}

#[test]
fn deepseek_v3_on_flex() {
    family("deepseek-v3", &flex(), MoeImpl::Selected);
}

#[test]
fn gpt_oss_on_flex() {
    family("gpt-oss", &flex(), MoeImpl::Selected);
}

#[test]
fn gpt_oss_dense_implementation_on_flex() {
    family("gpt-oss", &flex(), MoeImpl::Dense);
}

#[test]
fn gpt_oss_mxfp4_on_flex() {
    family("gpt-oss-mxfp4", &flex(), MoeImpl::Selected);
}

#[test]
fn gemma3_dense_on_flex() {
    family("gemma3-dense", &flex(), MoeImpl::Selected);
}

#[test]
fn glm4_moe_on_flex() {
    family("glm4-moe", &flex(), MoeImpl::Selected);
}

#[test]
fn qwen3_moe_on_flex() {
    family("qwen3-moe", &flex(), MoeImpl::Selected);
}

#[test]
fn olmoe_on_flex() {
    family("olmoe", &flex(), MoeImpl::Selected);
}

#[test]
fn mixtral_on_flex() {
    family("mixtral", &flex(), MoeImpl::Selected);
}

/// Experts by groups, embedding, head and projections by rows, latents' projections by heads.
#[test]
fn weights_in_many_tensors_on_flex() {
    for folder in CUT_FOLDERS {
        cut(folder, &flex(), 3);
        cut(folder, &flex(), 20);
    }
}

#[test]
fn bundled_model_on_flex() {
    bundled(&flex(), DType::F32, 1e-3);
}

/// The checkpoint is bfloat16: kept so, it is the same model.
#[test]
fn bundled_model_in_bf16_on_flex() {
    bundled(&flex(), DType::Bf16, 1e-3);
}

/// f16 holds every weight of the checkpoint but the tiniest exactly.
#[test]
fn bundled_model_in_f16_on_flex() {
    let bench = Bench { weights: 1e-3, ..flex() };
    bundled(&bench, DType::F16, 1e-2);
}

#[test]
fn gemma4_moe_on_wgpu() {
    family("gemma4-moe", &wgpu(), MoeImpl::Selected);
}

#[test]
fn gemma4_moe_dense_implementation_on_wgpu() {
    family("gemma4-moe", &wgpu(), MoeImpl::Dense);
}

#[test]
fn gemma4_dense_on_wgpu() {
    family("gemma4-dense", &wgpu(), MoeImpl::Selected);
}

#[test]
fn gemma4_per_layer_embeddings_and_shared_kv_on_wgpu() {
    family("gemma4-ple-kvshared", &wgpu(), MoeImpl::Selected);
}

#[test]
fn gemma4_sharded_multimodal_bfloat16_on_wgpu() {
    family("gemma4-moe-multimodal-sharded", &wgpu(), MoeImpl::Selected);
}

#[test]
fn deepseek_v3_on_wgpu() {
    family("deepseek-v3", &wgpu(), MoeImpl::Selected);
}

#[test]
fn gpt_oss_on_wgpu() {
    family("gpt-oss", &wgpu(), MoeImpl::Selected);
}

#[test]
fn gpt_oss_mxfp4_on_wgpu() {
    family("gpt-oss-mxfp4", &wgpu(), MoeImpl::Selected);
}

#[test]
fn gemma3_dense_on_wgpu() {
    family("gemma3-dense", &wgpu(), MoeImpl::Selected);
}

#[test]
fn glm4_moe_on_wgpu() {
    family("glm4-moe", &wgpu(), MoeImpl::Selected);
}

#[test]
fn qwen3_moe_on_wgpu() {
    family("qwen3-moe", &wgpu(), MoeImpl::Selected);
}

#[test]
fn olmoe_on_wgpu() {
    family("olmoe", &wgpu(), MoeImpl::Selected);
}

#[test]
fn mixtral_on_wgpu() {
    family("mixtral", &wgpu(), MoeImpl::Selected);
}

#[test]
fn weights_in_many_tensors_on_wgpu() {
    for folder in CUT_FOLDERS {
        cut(folder, &wgpu(), 3);
    }
}

#[test]
fn bundled_model_on_wgpu() {
    bundled(&wgpu(), DType::F32, 2e-3);
}

/// The one type narrower than f32 that GPUs multiply everywhere.
#[test]
fn bundled_model_in_f16_on_wgpu() {
    let bench = Bench { weights: 1e-3, ..wgpu() };
    bundled(&bench, DType::F16, 1e-2);
}
