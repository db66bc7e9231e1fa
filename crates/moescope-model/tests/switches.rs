//! Sizes and switches beyond the fixtures', against the plain decoder, on random checkpoints.

use std::fs;

use burn::tensor::Device;
use moescope_model::{Checkpoint, MoeImpl, describe};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    common::{Everything, assert_close, forward_all, in_chunks, load_f32},
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
