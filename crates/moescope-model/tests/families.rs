//! Every family alike: damaged checkpoints, unknown switches, and configs as they are published.

use std::{fs, path::Path};

use burn::tensor::Device;
use moescope_model::{Checkpoint, MoeImpl, Unobserved, describe};
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::{
    checkpoint::{Tensors, assert_says, copy, edit_config, edit_weights, message, try_load},
    common::{forward_all, load_f32},
};

/// Checkpoints in one file whose layers beside experts are spelled alike.
const FIXTURES: &[&str] = &["gemma3-dense", "glm4-moe", "mixtral", "olmoe", "qwen3-moe"];

fn names(dir: &Path) -> Vec<String> {
    let bytes = fs::read(dir.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.names().into_iter().map(str::to_owned).collect()
}

#[test]
fn every_tensor_is_needed() {
    let others = ["deepseek-v3", "gemma4-moe", "gpt-oss", "gpt-oss-mxfp4"];
    for fixture in FIXTURES.iter().chain(&others) {
        let dir = copy(fixture);
        let whole = fs::read(dir.path().join("model.safetensors")).unwrap();
        for name in names(dir.path()) {
            edit_weights(dir.path(), |t| drop(t.remove(&name)));
            assert_says(&message(dir.path()), &["missing", &name]);
            fs::write(dir.path().join("model.safetensors"), &whole).unwrap();
        }
    }
}

#[test]
fn damage_is_named() {
    let plain = FIXTURES.iter().map(|fixture| (*fixture, "self_attn.v_proj.weight"));
    // Weights that are laid out in another way than they are stored.
    let laid_out = [
        ("deepseek-v3", "self_attn.q_b_proj.weight"),
        ("deepseek-v3", "self_attn.kv_b_proj.weight"),
        ("gpt-oss", "mlp.experts.gate_up_proj"),
        ("gpt-oss", "mlp.experts.down_proj"),
    ];
    for (fixture, name) in plain.chain(laid_out) {
        let check = |edit: &dyn Fn(&mut Tensors, &str), says: &[&str]| {
            let dir = copy(fixture);
            let name = &format!("model.layers.2.{name}");
            edit_weights(dir.path(), |t| edit(t, name));
            let message = message(dir.path());
            assert_says(&message, &[name]);
            assert_says(&message, says);
        };
        check(&|t, n| drop(t.insert(format!("{n}.more"), t[n].clone())), &["unexpected", ".more"]);
        check(&|t, n| t.get_mut(n).unwrap().1.insert(0, 1), &["expected shape", "found"]);
        check(
            &|t, n| {
                let tensor = t.get_mut(n).unwrap();
                tensor.0 = Dtype::I32;
            },
            &["I32"],
        );
        check(
            &|t, n| t.get_mut(n).unwrap().2[8..12].copy_from_slice(&f32::NAN.to_le_bytes()),
            &["element 2", "NaN"],
        );
        for keep in [0, 7, 1000, 200_000] {
            let dir = copy(fixture);
            let path = dir.path().join("model.safetensors");
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..keep]).unwrap();
            assert_says(&message(dir.path()), &["model.safetensors"]);
        }
    }
}

#[test]
fn impossible_values_are_refused_by_name() {
    let huge = json!(1u64 << 62);
    let of_all =
        ["deepseek-v3", "gemma4-moe", "gpt-oss"].into_iter().chain(FIXTURES.iter().copied());
    let common = [
        ("hidden_size", huge.clone()),
        ("num_hidden_layers", json!(70_000)),
        ("num_hidden_layers", json!(4_000_000_000u64)),
        ("head_dim", huge.clone()),
        ("rms_norm_eps", json!(-1.0)),
    ];
    let own = [
        ("deepseek-v3", "head_dim", json!(999)),
        ("deepseek-v3", "n_shared_experts", json!(70_000)),
        ("deepseek-v3", "num_nextn_predict_layers", json!(u64::MAX)),
        ("gemma3-dense", "final_logit_softcapping", json!(0.0)),
        ("gemma3-dense", "query_pre_attn_scalar", json!(-4.0)),
        ("gemma4-moe", "final_logit_softcapping", json!(-30.0)),
        ("gemma4-moe", "global_head_dim", json!(0)),
        ("gemma4-moe", "num_experts", json!(70_000)),
        ("glm4-moe", "n_shared_experts", json!(u64::MAX)),
        ("gpt-oss", "swiglu_limit", json!(-7.0)),
        ("mixtral", "num_local_experts", json!(70_000)),
        ("olmoe", "clip_qkv", json!(-1.0)),
    ];
    let shared = of_all.flat_map(|f| common.iter().map(move |(k, v)| (f, *k, v.clone())));
    for (fixture, key, value) in shared.chain(own) {
        let dir = copy(fixture);
        edit_config(dir.path(), |c| c[key] = value.clone());
        assert_says(&message(dir.path()), &["config.json", key]);
    }
    // The shapes on disk are looked at before memory for those of the config is reserved.
    for fixture in FIXTURES {
        let dir = copy(fixture);
        edit_config(dir.path(), |c| c["intermediate_size"] = json!(u32::MAX));
        edit_config(dir.path(), |c| c["vocab_size"] = json!(u32::MAX));
        assert_says(&message(dir.path()), &["expected shape", "4294967295"]);
    }
    let dir = copy("gemma4-moe");
    let rope = json!({"rope_type": "proportional", "rope_theta": 0.0});
    edit_config(dir.path(), |c| c["rope_parameters"]["full_attention"] = rope);
    assert_says(&message(dir.path()), &["rope_theta", "above 1"]);
    let dir = copy("gemma4-moe");
    edit_config(dir.path(), |c| c["per_layer_config"] = json!({"0": {"head_dim": 8}}));
    assert_says(&message(dir.path()), &["per_layer_config"]);
}

/// To a config null is as good as absent.
#[test]
fn a_null_is_nothing_said() {
    let logits = |edit: &dyn Fn(&mut Value)| {
        let dir = copy("glm4-moe");
        edit_config(dir.path(), |c| edit(c));
        let model = load_f32(dir.path(), &Device::flex(), MoeImpl::Selected);
        forward_all(model.as_ref(), &[3, 1, 4, 1, 5, 9, 2, 6], 1, &mut Unobserved)
    };
    const KEY: &str = "partial_rotary_factor";
    let given = logits(&|_| {});
    let null = logits(&|c| c["rope_parameters"][KEY] = json!(null));
    let absent = logits(&|c| drop(c["rope_parameters"].as_object_mut().unwrap().remove(KEY)));
    assert_eq!(null, absent);
    // The fixture's 0.5 is the family's default.
    assert_eq!(given, absent);
}

#[test]
fn switches_nobody_implements_are_refused_by_name() {
    let all = [
        ("turbo_mode", json!(true)),
        ("quantization_config", json!({"quant_method": "gptq"})),
        ("rope_parameters", json!({"rope_type": "spiral", "rope_theta": 1e4})),
    ];
    let own: &[(&str, &str, Value)] = &[
        ("gemma3-dense", "attn_logit_softcapping", json!(50.0)),
        ("gemma3-dense", "use_bidirectional_attention", json!(true)),
        ("gemma3-dense", "hidden_activation", json!("relu")),
        (
            "gemma3-dense",
            "layer_types",
            json!([
                "linear_attention",
                "linear_attention",
                "linear_attention",
                "linear_attention",
                "linear_attention",
                "linear_attention"
            ]),
        ),
        ("glm4-moe", "hidden_act", json!("relu")),
        ("glm4-moe", "n_group", json!(3)),
        ("glm4-moe", "topk_group", json!(2)),
        ("glm4-moe", "num_experts_per_tok", json!(9)),
        ("mixtral", "attention_bias", json!(true)),
        ("mixtral", "num_local_experts", json!(0)),
        ("olmoe", "head_dim", json!(8)),
        ("olmoe", "sliding_window", json!(8)),
        ("qwen3-moe", "shared_expert_intermediate_size", json!(8)),
        ("qwen3-moe", "mlp_only_layers", json!([3])),
        ("qwen3-moe", "num_key_value_heads", json!(3)),
        ("qwen3-moe", "num_experts", json!(4)),
    ];
    let shared = FIXTURES.iter().flat_map(|f| all.iter().map(move |(k, v)| (*f, *k, v.clone())));
    for (fixture, key, value) in shared.chain(own.iter().cloned()) {
        let dir = copy(fixture);
        edit_config(dir.path(), |c| c[key] = value.clone());
        assert_says(&message(dir.path()), &["config.json", key]);
    }
    let dir = copy("qwen3-moe");
    edit_config(dir.path(), |c| {
        c["use_sliding_window"] = json!(true);
        c["max_window_layers"] = json!(2);
    });
    assert_says(&message(dir.path()), &["max_window_layers"]);
}

/// Published checkpoints hold a head that is the embedding's copy, and frequencies that follow from the config.
#[test]
fn copies_and_derived_tensors_are_known() {
    const HEAD: &str = "lm_head.weight";
    let dir = copy("gemma3-dense");
    let want = logits(dir.path());
    edit_weights(dir.path(), |t| {
        t.insert(HEAD.into(), t["model.embed_tokens.weight"].clone());
        let frequencies = (Dtype::F32, vec![2], vec![0; 8]);
        t.insert("model.layers.1.self_attn.rotary_emb.inv_freq".into(), frequencies);
    });
    assert_eq!(logits(dir.path()), want);
    edit_weights(dir.path(), |t| t.get_mut(HEAD).unwrap().2[77] ^= 1);
    assert_says(&message(dir.path()), &["unexpected", HEAD]);
    edit_weights(dir.path(), |t| {
        let mut half = t["model.embed_tokens.weight"].clone();
        half.1[0] /= 2;
        half.2.truncate(half.2.len() / 2);
        t.insert(HEAD.into(), half);
    });
    assert_says(&message(dir.path()), &["unexpected", HEAD]);
}

/// A window that is switched on and not given has the reference's size; one that is null is none.
#[test]
fn the_window_of_qwen3() {
    let window = |window: Option<Value>| {
        let dir = copy("qwen3-moe");
        edit_config(dir.path(), |c| {
            c["use_sliding_window"] = json!(true);
            c.as_object_mut().unwrap().remove("max_window_layers");
            match window {
                Some(window) => c["sliding_window"] = window,
                None => drop(c.as_object_mut().unwrap().remove("sliding_window")),
            }
        });
        describe(&Checkpoint::open_config(dir.path()).unwrap()).unwrap().kv[0].window
    };
    assert_eq!(window(None), Some(4096));
    assert_eq!(window(Some(json!(null))), None);
    assert_eq!(window(Some(json!(9))), Some(9));
}

/// A checkpoint that was converted to bf16 with the config of its origin.
#[test]
fn a_format_that_is_named_and_not_there() {
    let dir = copy("gpt-oss");
    let want = logits(dir.path());
    edit_config(dir.path(), |c| c["quantization_config"] = json!({"quant_method": "mxfp4"}));
    assert_eq!(logits(dir.path()), want);
    // What is missing is called what the config calls it.
    edit_weights(dir.path(), |t| drop(t.remove("model.layers.1.mlp.experts.down_proj")));
    assert_says(&message(dir.path()), &["missing", "model.layers.1.mlp.experts.down_proj_blocks"]);
}

/// Renames and drops keys: `null` drops.
fn respell(config: &mut Value, keys: &[(&str, Value)]) {
    for (key, value) in keys {
        match value {
            Value::Null => drop(config.as_object_mut().unwrap().remove(*key)),
            value => config[*key] = value.clone(),
        }
    }
}

fn logits(dir: &Path) -> Vec<f32> {
    let model = load_f32(dir, &Device::flex(), MoeImpl::Selected);
    let tokens: Vec<u32> = (0..20).map(|i| i * i * 7 % 256).collect();
    forward_all(model.as_ref(), &tokens, 1, &mut Unobserved)
}

#[test]
fn configs_as_published_mean_the_same() {
    let none = Value::Null;
    let cases: &[(&str, &[(&str, Value)])] = &[
        (
            "qwen3-moe",
            &[
                ("rope_parameters", none.clone()),
                ("rope_theta", json!(10000.0)),
                ("rope_scaling", json!(null)),
                ("num_local_experts", none.clone()),
                ("num_experts", json!(8)),
                ("max_window_layers", json!(48)),
            ],
        ),
        (
            "olmoe",
            &[
                ("rope_parameters", none.clone()),
                ("rope_theta", json!(10000.0)),
                ("num_key_value_heads", none.clone()),
            ],
        ),
        ("mixtral", &[("rope_parameters", none.clone()), ("rope_theta", json!(1_000_000.0))]),
        (
            "glm4-moe",
            &[
                ("rope_parameters", none.clone()),
                ("rope_theta", json!(10000.0)),
                ("partial_rotary_factor", json!(0.5)),
            ],
        ),
        // The reference's default for the family.
        ("glm4-moe", &[("rope_parameters", none.clone()), ("rope_theta", json!(10000.0))]),
        (
            "gemma3-dense",
            &[
                ("rope_parameters", none.clone()),
                ("layer_types", none.clone()),
                ("_sliding_window_pattern", none.clone()),
                ("sliding_window_pattern", json!(6)),
                ("rope_theta", json!(1_000_000.0)),
                ("rope_local_base_freq", json!(10000.0)),
                ("cache_implementation", json!("hybrid")),
            ],
        ),
    ];
    for (fixture, keys) in cases {
        let dir = copy(fixture);
        let want = logits(dir.path());
        edit_config(dir.path(), |c| respell(c, keys));
        assert_eq!(logits(dir.path()), want, "{fixture}");
    }
}

/// Both layouts of multimodal Gemma 3: as published, and as transformers 5 writes them.
#[test]
fn the_text_part_of_multimodal_gemma3() {
    let want = logits(copy("gemma3-dense").path());
    for (decoder, tower) in [
        ("language_model.model.", "vision_tower.vision_model.post_layernorm.weight"),
        ("model.language_model.", "model.multi_modal_projector.mm_soft_emb_norm.weight"),
    ] {
        let dir = copy("gemma3-dense");
        edit_config(dir.path(), |c| {
            let text = c.take();
            *c = json!({
                "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
                "boi_token_index": 3, "eoi_token_index": 4, "image_token_index": 5,
                "mm_tokens_per_image": 256, "vision_config": {"hidden_size": 8},
                "text_config": text,
            });
        });
        edit_weights(dir.path(), |t| {
            *t = std::mem::take(t)
                .into_iter()
                .map(|(name, tensor)| (name.replace("model.", decoder), tensor))
                .collect();
            t.insert(tower.into(), (Dtype::F32, vec![8], vec![0; 32]));
        });
        assert_eq!(logits(dir.path()), want, "{decoder}");
    }
}

/// A head of its own lies beside the decoder, wherever that is.
#[test]
fn untied_heads_of_multimodal_checkpoints() {
    for (decoder, head) in [
        ("language_model.model.", "language_model.lm_head.weight"),
        ("model.language_model.", "lm_head.weight"),
    ] {
        let dir = copy("gemma3-dense");
        edit_config(dir.path(), |c| {
            let text = c.take();
            *c = json!({
                "architectures": ["Gemma3ForConditionalGeneration"],
                "tie_word_embeddings": false, "text_config": text,
            });
        });
        edit_weights(dir.path(), |t| {
            let embedding = t["model.embed_tokens.weight"].clone();
            *t = std::mem::take(t)
                .into_iter()
                .map(|(name, tensor)| (name.replace("model.", decoder), tensor))
                .collect();
            t.insert(head.into(), embedding);
        });
        assert_eq!(logits(dir.path()), logits(copy("gemma3-dense").path()), "{head}");
        edit_weights(dir.path(), |t| drop(t.remove(head)));
        assert_says(&message(dir.path()), &["missing", head]);
    }
}

/// Layers that predict further tokens come with GLM checkpoints and are no part of a forward pass.
#[test]
fn predicting_layers_are_skipped() {
    let dir = copy("glm4-moe");
    let extra = "model.layers.3.eh_proj.weight";
    edit_weights(dir.path(), |t| {
        t.insert(extra.into(), (Dtype::F32, vec![2], vec![0; 8]));
    });
    try_load(dir.path()).unwrap();
    edit_config(dir.path(), |c| c["num_nextn_predict_layers"] = json!(0));
    assert_says(&message(dir.path()), &["unexpected", extra]);
}

/// Parameters of dense layers are all active, experts in the share of their own layer.
#[test]
fn active_parameters_are_counted_by_layer() {
    let spec = describe(&Checkpoint::open_config(copy("glm4-moe").path()).unwrap()).unwrap();
    // Two MoE layers of 8 experts, 3 matrices of 48 x 24 each, 2 of 8 active; an embedding apart from the head.
    let experts = 2 * 8 * 3 * 48 * 24;
    let inactive = experts - experts / 4 + 256 * 48;
    assert_eq!(spec.total_parameters() - spec.active_parameters(), inactive);
    assert_eq!(spec.moe.iter().map(|m| m.layer).collect::<Vec<_>>(), [1, 2]);
    assert!(spec.moe.iter().all(|m| m.shared_experts == 1));
}
