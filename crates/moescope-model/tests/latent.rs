//! Latent attention in sizes and switches beyond the fixture's, against a plain one in f64 that expands the keys
//! and values of every head, in a decoder of one dense layer.

use std::{collections::BTreeMap, fs, path::Path};

use burn::tensor::Device;
use moescope_model::{Checkpoint, KvCache, LogitsFor, MoeImpl, Unobserved, describe};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

use crate::common::{assert_close, floats, forward_all, ids, load_f32};

const TOKENS: usize = 11;

type Weights = BTreeMap<String, Vec<f32>>;

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

/// Writes a checkpoint with every tensor the config asks for.
fn random(dir: &Path, config: &Value) -> Weights {
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let spec = describe(&Checkpoint::open_config(dir).unwrap()).unwrap();
    let mut state = 88_172_645_463_325_252u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let (mut weights, mut bytes) = (Weights::new(), Vec::new());
    for tensor in &spec.tensors {
        let beside = tensor.name.starts_with("lm_head.");
        let name = if beside { tensor.name.clone() } else { format!("model.{}", tensor.name) };
        let values: Vec<f32> = (0..tensor.parameters()).map(|_| 0.6 * uniform()).collect();
        let stored: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        bytes.push((name.clone(), tensor.shape.clone(), stored));
        weights.insert(name, values);
    }
    let views: Vec<(String, TensorView<'_>)> = bytes
        .iter()
        .map(|(name, shape, bytes)| {
            (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        })
        .collect();
    fs::write(dir.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    weights
}

struct Plain<'a> {
    config: &'a Value,
    weights: &'a Weights,
}

impl Plain<'_> {
    fn logits(&self, ids: &[u32]) -> Vec<f32> {
        let h = self.size("hidden_size");
        let eps = self.config["rms_norm_eps"].as_f64().unwrap();
        let at = |name: &str| format!("model.layers.0.{name}");
        let table = &self.weights["model.embed_tokens.weight"];
        let rows: Vec<Vec<f64>> = ids
            .iter()
            .map(|&id| table[id as usize * h..][..h].iter().map(|&x| f64::from(x)).collect())
            .collect();
        let normed: Vec<_> =
            rows.iter().map(|row| self.norm(&at("input_layernorm"), row, eps)).collect();
        let attended = self.attention(&normed);
        let mut logits = Vec::new();
        for (row, attended) in rows.iter().zip(&attended) {
            let row: Vec<f64> = row.iter().zip(attended).map(|(a, b)| a + b).collect();
            let x = self.norm(&at("post_attention_layernorm"), &row, eps);
            let gate = self.linear(&at("mlp.gate_proj"), &x);
            let up = self.linear(&at("mlp.up_proj"), &x);
            let act: Vec<f64> =
                gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            let out = self.linear(&at("mlp.down_proj"), &act);
            let row: Vec<f64> = row.iter().zip(&out).map(|(a, b)| a + b).collect();
            let normed = self.norm("model.norm", &row, eps);
            logits.extend(self.linear("lm_head", &normed).iter().map(|&x| x as f32));
        }
        logits
    }

    /// One head after the other, keys and values expanded.
    fn attention(&self, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let at = |name: &str| format!("model.layers.0.self_attn.{name}");
        let [nope, rope, value, rank] =
            ["qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank"]
                .map(|key| self.size(key));
        let heads = self.size("num_attention_heads");
        // The reference's default, not the config's.
        let eps = 1e-6;
        let (mut queries, mut keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (position, row) in rows.iter().enumerate() {
            let q = match self.config["q_lora_rank"].is_null() {
                true => self.linear(&at("q_proj"), row),
                false => {
                    let latent = self.linear(&at("q_a_proj"), row);
                    self.linear(&at("q_b_proj"), &self.norm(&at("q_a_layernorm"), &latent, eps))
                }
            };
            let latent = self.linear(&at("kv_a_proj_with_mqa"), row);
            let turned = self.rotate(&latent[rank..], position);
            let latent = self.norm(&at("kv_a_layernorm"), &latent[..rank], eps);
            let expanded = self.linear(&at("kv_b_proj"), &latent);
            let turn =
                |head: &[f64]| [&head[..nope], &self.rotate(&head[nope..], position)].concat();
            queries.push(q.chunks(nope + rope).map(turn).collect::<Vec<_>>());
            let each: Vec<&[f64]> = expanded.chunks(nope + value).collect();
            keys.push(each.iter().map(|e| [&e[..nope], &turned].concat()).collect::<Vec<_>>());
            values.push(each.iter().map(|e| e[nope..].to_vec()).collect::<Vec<_>>());
        }
        let scale = ((nope + rope) as f64).powf(-0.5) * self.score_factor();
        let one = |t: usize| {
            let mut all = Vec::new();
            for n in 0..heads {
                let weights: Vec<f64> = (0..=t)
                    .map(|s| {
                        let dot = |a: &[f64], b: &[f64]| -> f64 {
                            a.iter().zip(b).map(|(a, b)| a * b).sum()
                        };
                        (scale * dot(&queries[t][n], &keys[s][n])).exp()
                    })
                    .collect();
                let sum: f64 = weights.iter().sum();
                all.extend((0..value).map(|d| {
                    weights.iter().zip(&values).map(|(w, v)| w / sum * v[n][d]).sum::<f64>()
                }));
            }
            self.linear(&at("o_proj"), &all)
        };
        (0..rows.len()).map(one).collect()
    }

    /// The default kind, or a YaRN that keeps the first frequency only: see the test.
    fn rotate(&self, x: &[f64], position: usize) -> Vec<f64> {
        let (half, mut out) = (x.len() / 2, x.to_vec());
        for i in 0..half {
            let divisor = if i == 0 { 1.0 } else { self.factor() };
            let frequency = 50f64.powf(-2.0 * i as f64 / x.len() as f64) / divisor;
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            let interleaved = self.config["rope_interleave"].as_bool().unwrap_or(true);
            let (a, b) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + half) };
            (out[a], out[b]) = (x[a] * cos - x[b] * sin, x[b] * cos + x[a] * sin);
        }
        out
    }

    fn factor(&self) -> f64 {
        self.config["rope_scaling"]["factor"].as_f64().unwrap_or(1.0)
    }

    fn score_factor(&self) -> f64 {
        match self.config["rope_scaling"]["mscale_all_dim"].as_f64() {
            Some(weight) => (0.1 * weight * self.factor().ln() + 1.0).powi(2),
            None => 1.0,
        }
    }

    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let bias = self.weights.get(&format!("{name}.bias"));
        self.weights[&format!("{name}.weight")]
            .chunks(x.len())
            .enumerate()
            .map(|(i, row)| {
                let product: f64 = row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum();
                product + bias.map_or(0.0, |bias| f64::from(bias[i]))
            })
            .collect()
    }

    fn norm(&self, name: &str, x: &[f64], eps: f64) -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let weight = &self.weights[&format!("{name}.weight")];
        x.iter().zip(weight).map(|(x, w)| x / (mean + eps).sqrt() * f64::from(*w)).collect()
    }

    fn size(&self, key: &str) -> usize {
        self.config[key].as_u64().unwrap() as usize
    }
}

#[test]
fn every_switch_attends_as_written() {
    // So short an original context that all frequencies but the first are divided by the factor; mscale
    // and mscale_all_dim being equal, cosines and sines stay as they are.
    let yarn = json!({
        "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 6,
        "mscale": 0.7, "mscale_all_dim": 0.7,
    });
    for switches in [
        json!({}),
        json!({"rope_interleave": false}),
        json!({"q_lora_rank": 11}),
        json!({"q_lora_rank": 11, "attention_bias": true}),
        json!({"rope_scaling": yarn}),
        json!({"num_attention_heads": 1, "head_dim": 6, "v_head_dim": 1, "kv_lora_rank": 1}),
        json!({"num_attention_heads": 9, "qk_nope_head_dim": 1, "qk_rope_head_dim": 2}),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let config = config(switches.clone());
        let weights = random(dir.path(), &config);
        let tokens: Vec<u32> = (0..TOKENS as u32).map(|i| (i * 7 + 3) % 32).collect();
        let want = Plain { config: &config, weights: &weights }.logits(&tokens);
        let model = load_f32(dir.path(), &Device::flex(), MoeImpl::Selected);
        let got = forward_all(model.as_ref(), &tokens, 1, &mut Unobserved);
        assert_close(&got, &want, 1e-4, &format!("{switches}"));
        // The same token by token, from the cached latents.
        let mut cache = KvCache::new(model.spec(), 1, TOKENS, model.device()).unwrap();
        for (i, token) in tokens.iter().enumerate() {
            let input = ids(&[*token], 1, model.device());
            let out = model.forward(input, &mut cache, &mut Unobserved, LogitsFor::All).unwrap();
            let vocab = model.spec().vocab;
            let want = &want[i * vocab..(i + 1) * vocab];
            assert_close(&floats(out), want, 1e-4, &format!("{switches} token {i}"));
        }
    }
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
