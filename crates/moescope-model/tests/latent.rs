//! Latent attention beyond what `switches.rs` holds against the plain decoder: the size of its cache, and what
//! the family does not do.

use std::fs;

use moescope_model::{Checkpoint, describe};
use serde_json::{Value, json};

/// Three heads with parts of sizes that divide nothing; `switches` are added.
fn config(switches: Value) -> Value {
    let mut config = json!({
        "architectures": ["DeepseekV3ForCausalLM"], "hidden_size": 18, "intermediate_size": 10,
        "num_hidden_layers": 1, "num_attention_heads": 3, "first_k_dense_replace": 1,
        "kv_lora_rank": 9, "q_lora_rank": null, "qk_nope_head_dim": 5, "qk_rope_head_dim": 6,
        "v_head_dim": 7, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 4,
        "topk_group": 2, "moe_intermediate_size": 4, "max_position_embeddings": 64,
        "vocab_size": 32, "rms_norm_eps": 1e-5, "rope_theta": 50.0,
    });
    let Value::Object(switches) = switches else { panic!("not an object") };
    switches.into_iter().for_each(|(key, value)| config[key] = value);
    config
}

/// 512 + 64 numbers per token and layer, in f32.
#[test]
fn the_cache_of_deepseek_v3_is_as_small_as_its_paper_says() {
    let entry = moescope_model::catalog::find("deepseek-v3").unwrap().unwrap();
    let spec = describe(&Checkpoint::from_catalog(&entry).unwrap()).unwrap();
    assert_eq!(moescope_model::footprint::kv_bytes(&spec, 1, 1), 61 * (512 + 64) * 4);
}

#[test]
fn what_the_family_does_not_do_is_refused_by_name() {
    for (switch, says) in [
        (json!({"num_key_value_heads": 1}), "num_key_value_heads"),
        (json!({"scoring_func": "softmax"}), "scoring_func"),
        (json!({"topk_method": "group_limited_greedy"}), "topk_method"),
        (json!({"n_group": 3}), "n_group"),
        (json!({"n_group": 8}), "n_group"),
        (json!({"topk_group": 5}), "topk_group"),
        (json!({"num_experts_per_tok": 5}), "topk_group"),
        (json!({"qk_head_dim": 12}), "qk_head_dim"),
        (json!({"qk_rope_head_dim": 5}), "partial_rotary_factor"),
        (json!({"rope_scaling": {"type": "spiral"}}), "rope_scaling.rope_type"),
        (json!({"index_topk": 2048}), "index_topk"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), config(switch.clone()).to_string()).unwrap();
        let error = describe(&Checkpoint::open_config(dir.path()).unwrap()).unwrap_err();
        assert!(error.to_string().contains(says), "{switch}: {error}");
    }
}
