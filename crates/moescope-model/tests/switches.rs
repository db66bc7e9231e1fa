//! Sizes and switches beyond the fixtures', against the plain decoder, on random checkpoints.

use std::fs;

use burn::tensor::{Device, DeviceKind};
use moescope_model::{Checkpoint, KvCache, MoeImpl, describe};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    common::{Everything, assert_close, forward_all, in_chunks, load_cut, load_f32},
    plain::{self, Weights},
};

const TOKENS: usize = 13;

fn rope() -> Value {
    json!({"rope_type": "default", "rope_theta": 100.0})
}

/// Sizes all families share.
fn with(family: Value) -> Value {
    let mut config = json!({
        "vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
        "num_experts_per_tok": 3, "rope_parameters": rope(),
    });
    merge(&mut config, family);
    config
}

fn qwen3() -> Value {
    with(json!({
        "architectures": ["Qwen3MoeForCausalLM"], "head_dim": 10, "num_experts": 8,
        "moe_intermediate_size": 12, "intermediate_size": 20, "norm_topk_prob": true,
    }))
}

fn olmoe() -> Value {
    with(json!({
        "architectures": ["OlmoeForCausalLM"], "num_experts": 8, "intermediate_size": 12,
        "norm_topk_prob": false,
    }))
}

fn mixtral() -> Value {
    with(json!({
        "architectures": ["MixtralForCausalLM"], "num_local_experts": 8, "intermediate_size": 12,
    }))
}

fn glm() -> Value {
    with(json!({
        "architectures": ["Glm4MoeForCausalLM"], "head_dim": 12, "n_routed_experts": 8,
        "moe_intermediate_size": 12, "intermediate_size": 20, "n_shared_experts": 1,
        "first_k_dense_replace": 1, "num_hidden_layers": 3, "norm_topk_prob": true,
        "rope_parameters": {"rope_theta": 100.0, "partial_rotary_factor": 0.5},
    }))
}

fn gemma3() -> Value {
    let mut config = with(json!({
        "architectures": ["Gemma3ForCausalLM"], "head_dim": 10, "intermediate_size": 20,
        "num_hidden_layers": 3, "query_pre_attn_scalar": 10, "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {"sliding_attention": rope(), "full_attention": rope()},
    }));
    config.as_object_mut().unwrap().remove("num_experts_per_tok");
    config
}

fn gpt_oss() -> Value {
    with(json!({
        "architectures": ["GptOssForCausalLM"], "head_dim": 10, "num_local_experts": 8,
        "intermediate_size": 12, "num_hidden_layers": 3, "sliding_window": 4,
        "rope_parameters": yarn(json!({"truncate": false})),
    }))
}

/// Heads with parts of sizes that divide nothing.
fn deepseek() -> Value {
    with(json!({
        "architectures": ["DeepseekV3ForCausalLM"], "num_attention_heads": 3,
        "num_key_value_heads": 3, "kv_lora_rank": 9, "q_lora_rank": 11, "qk_nope_head_dim": 5,
        "qk_rope_head_dim": 6, "v_head_dim": 7, "n_routed_experts": 8, "n_shared_experts": 1,
        "n_group": 4, "topk_group": 2, "moe_intermediate_size": 12, "intermediate_size": 20,
        "first_k_dense_replace": 1, "num_hidden_layers": 3, "norm_topk_prob": true,
        "routed_scaling_factor": 2.5,
    }))
}

fn gemma4() -> Value {
    let mut config = with(json!({
        "architectures": ["Gemma4ForCausalLM"], "head_dim": 10, "global_head_dim": 14,
        "num_global_key_value_heads": 1, "attention_k_eq_v": true, "intermediate_size": 20,
        "num_hidden_layers": 3, "sliding_window": 4, "enable_moe_block": true, "num_experts": 8,
        "top_k_experts": 3, "moe_intermediate_size": 12, "hidden_size_per_layer_input": 0,
        "final_logit_softcapping": 5.0,
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
        "rope_parameters": {"sliding_attention": rope(), "full_attention": proportional(0.25)},
    }));
    config.as_object_mut().unwrap().remove("num_experts_per_tok");
    config
}

fn proportional(fraction: f64) -> Value {
    json!({"rope_type": "proportional", "rope_theta": 500.0, "partial_rotary_factor": fraction})
}

/// A YaRN that makes 16 tokens 64 and keeps, mixes and divides frequencies; `more` is added.
fn yarn(more: Value) -> Value {
    let mut yarn = json!({
        "rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0,
        "original_max_position_embeddings": 16,
    });
    merge(&mut yarn, more);
    yarn
}

/// Sets keys; null removes one.
fn merge(config: &mut Value, keys: Value) {
    let Value::Object(keys) = keys else { panic!("not an object") };
    for (key, value) in keys {
        match value {
            Value::Null => drop(config.as_object_mut().unwrap().remove(&key)),
            value => config[key] = value,
        }
    }
}

/// A checkpoint with every tensor the config asks for.
fn random(config: &Value) -> (TempDir, Weights) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let spec = describe(&Checkpoint::open_config(dir.path()).unwrap()).unwrap();
    let tensor = |name: &str, shape: &[usize]| -> Vec<f32> {
        let mut state = name.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| {
            (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
        });
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        // Matrices keep the size of what goes through them; vectors lie around 1, but for biases.
        let (scale, middle) = match shape {
            [_] if name.ends_with("bias") => (0.3, 0.0),
            [_] => (0.3, 1.0),
            [.., columns] => ((3.0 / *columns as f32).sqrt(), 0.0),
            [] => panic!("{name} has no shape"),
        };
        (0..shape.iter().product()).map(|_| uniform() * scale + middle).collect()
    };
    let weights: Weights = spec
        .tensors
        .iter()
        .map(|t| {
            let beside = t.name.starts_with("lm_head.");
            let name = if beside { t.name.clone() } else { format!("model.{}", t.name) };
            let values = tensor(&name, &t.shape);
            (name, (t.shape.clone(), values))
        })
        .collect();
    save(&dir, &weights);
    (dir, weights)
}

fn save(dir: &TempDir, weights: &Weights) {
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = weights
        .iter()
        .map(|(name, (shape, values))| {
            (name.clone(), shape.clone(), values.iter().flat_map(|x| x.to_le_bytes()).collect())
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let file = safetensors::serialize(views, None).unwrap();
    fs::write(dir.path().join("model.safetensors"), file).unwrap();
}

fn check(name: &str, config: &Value) {
    let (dir, weights) = random(config);
    let vocab = config["vocab_size"].as_u64().unwrap() as u32;
    let batch: Vec<Vec<u32>> = [7, 11]
        .iter()
        .map(|step| (0..TOKENS as u32).map(|i| (i * i * 5 + i * step + 3) % vocab).collect())
        .collect();
    let want: Vec<_> = batch.iter().map(|ids| plain::forward(config, &weights, ids)).collect();
    let floats = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
    let both = |of: &dyn Fn(&plain::Computed) -> Vec<f32>| -> Vec<f32> {
        want.iter().flat_map(of).collect()
    };
    let logits = both(&|c| floats(&c.logits));
    for moe_impl in [MoeImpl::Selected, MoeImpl::Dense] {
        let what = format!("{name}, {moe_impl}");
        let model = load_f32(dir.path(), &Device::flex(), moe_impl);
        let mut seen = Everything::default();
        let got = forward_all(model.as_ref(), &batch.concat(), 2, &mut seen);
        assert_close(&got, &logits, 1e-4, &format!("{what}: logits"));
        assert_eq!(seen.hidden.len(), want[0].hidden.len());
        for (i, got) in seen.hidden.iter().enumerate() {
            let want = both(&|c| floats(&c.hidden[i]));
            assert_close(got, &want, 1e-4, &format!("{what}: hidden {i}"));
        }
        assert_eq!(seen.routed.len(), want[0].routed.len(), "{what}: MoE layers");
        for (i, got) in seen.routed.iter().enumerate() {
            let choices: Vec<_> = want.iter().flat_map(|c| c.routed[i].1.concat()).collect();
            assert_eq!(usize::from(got.layer), want[0].routed[i].0);
            let ids: Vec<u32> = choices.iter().map(|(e, _)| *e as u32).collect();
            assert_eq!(got.experts, ids, "{what}: experts of layer {}", got.layer);
            let weights: Vec<f32> = choices.iter().map(|(_, w)| *w as f32).collect();
            assert_close(&got.weights, &weights, 1e-5, &format!("{what}: weights"));
        }
        let chunks = in_chunks(model.as_ref(), &batch.concat(), 2, &[5, 1, 1, 3, 1]);
        assert_close(&chunks, &logits, 1e-4, &format!("{what}: with the cache"));
    }
}

fn check_all(base: Value, cases: &[(&str, Value)]) {
    check("as it is", &base);
    for (name, keys) in cases {
        let mut config = base.clone();
        merge(&mut config, keys.clone());
        check(name, &config);
    }
}

#[test]
fn qwen3_moe_switches() {
    check_all(
        qwen3(),
        &[
            ("one expert per token", json!({"num_experts_per_tok": 1})),
            ("all experts", json!({"num_experts_per_tok": 8})),
            ("a single expert", json!({"num_experts": 1, "num_experts_per_tok": 1})),
            ("many experts", json!({"num_experts": 70, "num_experts_per_tok": 9})),
            ("one layer", json!({"num_hidden_layers": 1})),
            ("every other layer", json!({"num_hidden_layers": 4, "decoder_sparse_step": 2})),
            ("dense layers", json!({"num_hidden_layers": 4, "mlp_only_layers": [0, 2]})),
            (
                "both",
                json!({"num_hidden_layers": 4, "decoder_sparse_step": 2, "mlp_only_layers": [1]}),
            ),
            ("all dense", json!({"mlp_only_layers": [0, 1]})),
            ("probabilities as weights", json!({"norm_topk_prob": false})),
            ("biases", json!({"attention_bias": true})),
            ("a window", json!({"use_sliding_window": true, "sliding_window": 5})),
            ("a window of one", json!({"use_sliding_window": true, "sliding_window": 1})),
            ("a window switched off", json!({"use_sliding_window": false, "sliding_window": 5})),
            ("tied", json!({"tie_word_embeddings": true})),
            ("one key head", json!({"num_key_value_heads": 1})),
            ("no grouping", json!({"num_key_value_heads": null})),
            ("head size from the width", json!({"head_dim": null})),
            ("wide heads", json!({"head_dim": 34})),
            (
                "linear scaling",
                json!({"rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0}}),
            ),
        ],
    );
}

#[test]
fn olmoe_switches() {
    check_all(
        olmoe(),
        &[
            ("clamped", json!({"clip_qkv": 0.4})),
            ("renormalised", json!({"norm_topk_prob": true})),
            ("biases", json!({"attention_bias": true})),
            ("grouped", json!({"num_key_value_heads": 4, "num_attention_heads": 12})),
            ("one expert per token", json!({"num_experts_per_tok": 1})),
            ("all experts", json!({"num_experts_per_tok": 8})),
            ("one layer", json!({"num_hidden_layers": 1})),
            ("tied", json!({"tie_word_embeddings": true})),
        ],
    );
}

#[test]
fn mixtral_switches() {
    check_all(
        mixtral(),
        &[
            ("a window", json!({"sliding_window": 4})),
            ("a head size of its own", json!({"head_dim": 14})),
            ("one expert per token", json!({"num_experts_per_tok": 1})),
            ("all experts", json!({"num_experts_per_tok": 8})),
            ("one layer", json!({"num_hidden_layers": 1})),
            ("tied", json!({"tie_word_embeddings": true})),
        ],
    );
}

#[test]
fn glm4_moe_switches() {
    let rotary = |fraction: f64| json!({"rope_theta": 100.0, "partial_rotary_factor": fraction});
    check_all(
        glm(),
        &[
            ("normalised heads", json!({"use_qk_norm": true})),
            ("biases", json!({"attention_bias": true})),
            ("groups", json!({"n_group": 4, "topk_group": 2, "num_experts_per_tok": 4})),
            (
                "one of four groups",
                json!({"n_group": 4, "topk_group": 1, "num_experts_per_tok": 2}),
            ),
            ("all groups", json!({"n_group": 2, "topk_group": 2})),
            ("scaled", json!({"routed_scaling_factor": 2.5})),
            ("scores as weights", json!({"norm_topk_prob": false})),
            ("two shared experts", json!({"n_shared_experts": 2})),
            ("no dense layer", json!({"first_k_dense_replace": 0})),
            ("two dense layers", json!({"first_k_dense_replace": 2})),
            ("all dense", json!({"first_k_dense_replace": 3})),
            ("one expert per token", json!({"num_experts_per_tok": 1})),
            ("all experts", json!({"num_experts_per_tok": 8})),
            ("odd heads", json!({"head_dim": 9})),
            ("whole heads turn", json!({"rope_parameters": rotary(1.0)})),
            ("a quarter turns", json!({"head_dim": 16, "rope_parameters": rotary(0.25)})),
            ("tied", json!({"tie_word_embeddings": true})),
        ],
    );
}

#[test]
fn gemma3_switches() {
    let ropes = |full: Value| json!({"sliding_attention": rope(), "full_attention": full});
    let linear = json!({"rope_type": "linear", "rope_theta": 500.0, "factor": 8.0});
    let full = json!(["full_attention", "full_attention", "full_attention"]);
    check_all(
        gemma3(),
        &[
            ("scaled on full layers", json!({"rope_parameters": ropes(linear)})),
            ("another scale of scores", json!({"query_pre_attn_scalar": 7})),
            ("capped logits", json!({"final_logit_softcapping": 2.0})),
            ("untied", json!({"tie_word_embeddings": false})),
            ("biases", json!({"attention_bias": true})),
            ("no window", json!({"layer_types": full})),
            ("a window of one", json!({"sliding_window": 1})),
            ("one key head", json!({"num_key_value_heads": 1})),
            ("one layer", json!({"num_hidden_layers": 1, "layer_types": ["sliding_attention"]})),
        ],
    );
}

#[test]
fn gpt_oss_switches() {
    let (sliding, full) = ("sliding_attention", "full_attention");
    check_all(
        gpt_oss(),
        &[
            ("a rounded ramp", json!({"rope_parameters": yarn(json!({"truncate": true}))})),
            (
                "an attention factor of its own",
                json!({"rope_parameters": yarn(json!({"attention_factor": 1.3}))}),
            ),
            ("not scaled", json!({"rope_parameters": rope()})),
            ("no biases", json!({"attention_bias": false})),
            ("another activation", json!({"swiglu_alpha": 0.9, "swiglu_limit": 0.3})),
            ("the full layers first", json!({"layer_types": [full, sliding, full]})),
            ("no window", json!({"layer_types": [full, full, full]})),
            ("a window of one", json!({"sliding_window": 1})),
            ("one expert per token", json!({"num_experts_per_tok": 1})),
            ("all experts", json!({"num_experts_per_tok": 8})),
            ("a single expert", json!({"num_local_experts": 1, "num_experts_per_tok": 1})),
            ("many experts", json!({"num_local_experts": 70, "num_experts_per_tok": 9})),
            ("odd widths", json!({"hidden_size": 23, "intermediate_size": 11})),
            ("one layer", json!({"num_hidden_layers": 1})),
            ("one key head", json!({"num_key_value_heads": 1})),
            ("no grouping", json!({"num_key_value_heads": null})),
            ("tied", json!({"tie_word_embeddings": true})),
        ],
    );
}

#[test]
fn deepseek_v3_switches() {
    let scaled = yarn(json!({"mscale_all_dim": 0.7}));
    let yarn = |more| json!({"rope_parameters": yarn(more)});
    check_all(
        deepseek(),
        &[
            ("queries without a latent", json!({"q_lora_rank": null})),
            ("halves turn", json!({"rope_interleave": false})),
            ("biases", json!({"attention_bias": true})),
            ("biases but for queries", json!({"attention_bias": true, "q_lora_rank": null})),
            ("no dense layer", json!({"first_k_dense_replace": 0})),
            ("two dense layers", json!({"first_k_dense_replace": 2})),
            ("all dense", json!({"first_k_dense_replace": 3})),
            ("every other layer", json!({"num_hidden_layers": 5, "moe_layer_freq": 2})),
            (
                "every third after the second",
                json!({"num_hidden_layers": 7, "moe_layer_freq": 3, "first_k_dense_replace": 2}),
            ),
            ("scores as weights", json!({"norm_topk_prob": false})),
            ("not scaled", json!({"routed_scaling_factor": 1.0})),
            ("one expert per token", json!({"num_experts_per_tok": 1})),
            ("all experts", json!({"num_experts_per_tok": 8, "n_group": 4, "topk_group": 4})),
            ("one group", json!({"n_group": 1, "topk_group": 1})),
            ("one of four groups", json!({"topk_group": 1, "num_experts_per_tok": 2})),
            (
                "what the reference means by absent keys",
                json!({
                    "n_routed_experts": 16, "n_group": null, "topk_group": null,
                    "norm_topk_prob": null, "routed_scaling_factor": null,
                    "n_shared_experts": null,
                }),
            ),
            ("two shared experts", json!({"n_shared_experts": 2})),
            ("no shared expert", json!({"n_shared_experts": 0})),
            ("YaRN", yarn(json!({}))),
            ("YaRN as published", yarn(json!({"mscale": 1.0, "mscale_all_dim": 1.0}))),
            ("YaRN of two weights", yarn(json!({"mscale": 1.2, "mscale_all_dim": 0.5}))),
            ("YaRN of one weight", yarn(json!({"mscale_all_dim": 0.7}))),
            (
                "YaRN and halves, without a latent",
                json!({
                    "rope_parameters": scaled.clone(),
                    "rope_interleave": false, "q_lora_rank": null,
                }),
            ),
            (
                "the smallest heads",
                json!({
                    "num_attention_heads": 1, "num_key_value_heads": 1, "qk_nope_head_dim": 1,
                    "qk_rope_head_dim": 2, "v_head_dim": 1, "kv_lora_rank": 1, "q_lora_rank": null, "num_hidden_layers": 1,
                }),
            ),
            ("nine heads", json!({"num_attention_heads": 9, "num_key_value_heads": 9})),
            ("one layer", json!({"num_hidden_layers": 1})),
            ("one layer of experts", json!({"num_hidden_layers": 1, "first_k_dense_replace": 0})),
            ("tied", json!({"tie_word_embeddings": true})),
        ],
    );
}

#[test]
fn gemma4_switches() {
    let (sliding, full) = ("sliding_attention", "full_attention");
    let embeddings = json!({"hidden_size_per_layer_input": 6, "vocab_size_per_layer_input": 40});
    let shared = json!({
        "num_hidden_layers": 6, "num_kv_shared_layers": 2,
        "layer_types": [sliding, full, sliding, full, sliding, full],
    });
    let both = |mut one: Value, other: Value| {
        merge(&mut one, other);
        one
    };
    let ropes = |full: Value| json!({"sliding_attention": rope(), "full_attention": full});
    check_all(
        gemma4(),
        &[
            ("values of their own", json!({"attention_k_eq_v": false})),
            ("no experts", json!({"enable_moe_block": false})),
            ("one expert per token", json!({"top_k_experts": 1})),
            ("all experts", json!({"top_k_experts": 8})),
            ("a single expert", json!({"num_experts": 1, "top_k_experts": 1})),
            ("many experts", json!({"num_experts": 70, "top_k_experts": 9})),
            ("odd widths", json!({"hidden_size": 23, "moe_intermediate_size": 11})),
            (
                "one layer, which sees all whatever it is called",
                json!({"num_hidden_layers": 1, "layer_types": [sliding]}),
            ),
            ("a pattern of its own", json!({"num_hidden_layers": 7, "layer_types": null})),
            ("no window", json!({"layer_types": [full, full, full]})),
            ("a window of one", json!({"sliding_window": 1})),
            ("one size of heads", json!({"global_head_dim": 10})),
            ("half of a full head turns", json!({"rope_parameters": ropes(proportional(0.5))})),
            ("a whole full head turns", json!({"rope_parameters": ropes(proportional(1.0))})),
            ("as many key heads", json!({"num_global_key_value_heads": null})),
            ("uncapped", json!({"final_logit_softcapping": null})),
            ("per-layer embeddings", embeddings.clone()),
            ("shared keys", shared.clone()),
            (
                "shared keys and wide MLPs",
                both(shared.clone(), json!({"use_double_wide_mlp": true})),
            ),
            (
                "as the small ones are",
                both(
                    both(shared, embeddings),
                    json!({
                        "use_double_wide_mlp": true, "enable_moe_block": false,
                        "attention_k_eq_v": false, "num_key_value_heads": 1,
                    }),
                ),
            ),
        ],
    );
}

/// Latents much larger than heads: long passes expand them, short ones do not, on top of latents of either.
#[test]
fn long_passes_over_latents() {
    let mut config = deepseek();
    merge(&mut config, json!({"kv_lora_rank": 40, "num_hidden_layers": 2}));
    let (dir, weights) = random(&config);
    let ids: Vec<u32> = (0..2 * 64).map(|i| (i * i * 5 + i * 7 + 3) % 40).collect();
    let want: Vec<f32> = ids
        .chunks(64)
        .flat_map(|ids| plain::forward(&config, &weights, ids).logits)
        .map(|x| x as f32)
        .collect();
    let wgpu = Device::wgpu(DeviceKind::DefaultDevice);
    for (device, tolerance) in [(Device::flex(), 1e-4), (wgpu, 1e-3)] {
        for model in
            [load_f32(dir.path(), &device, MoeImpl::Selected), load_cut(dir.path(), &device, 20)]
        {
            for passes in [&[64][..], &[20, 44], &[40, 20, 1], &[12]] {
                let got = in_chunks(model.as_ref(), &ids, 2, passes);
                assert_close(&got, &want, tolerance, &format!("{passes:?}"));
            }
        }
    }
}

/// Beyond `max_position_embeddings`, in passes: the dynamic kind turns each by the length it reaches, and keys
/// stay as they were turned.
#[test]
fn contexts_are_as_long_as_their_rope_makes_them() {
    let dynamic = json!({"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0});
    let short = json!({"original_max_position_embeddings": 8, "mscale_all_dim": 0.7});
    for (base, scaling) in [
        (qwen3(), dynamic.clone()),
        (deepseek(), dynamic),
        (qwen3(), yarn(json!({"original_max_position_embeddings": 8}))),
        (deepseek(), yarn(short)),
    ] {
        let mut config = base;
        merge(&mut config, json!({"max_position_embeddings": 8, "rope_parameters": scaling}));
        let (dir, weights) = random(&config);
        let model = load_f32(dir.path(), &Device::flex(), MoeImpl::Selected);
        assert_eq!(model.spec().context, 32, "{config}");
        assert!(KvCache::new(model.spec(), 1, 33, model.device()).is_err());
        let ids: Vec<u32> = (0..20).map(|i| (i * i * 5 + i * 7 + 3) % 40).collect();
        // The first pass stays within, the third goes beyond, the rest is token by token.
        let passes = [5, 1, 6, 1, 1, 1, 1, 1, 1, 1, 1];
        let want = plain::forward_in(&config, &weights, &ids, &passes);
        let want: Vec<f32> = want.logits.iter().map(|&x| x as f32).collect();
        let got = in_chunks(model.as_ref(), &ids, 1, &passes);
        assert_close(&got, &want, 1e-4, &config.to_string());
    }
}
