//! A plain, slow decoder in f64, written from the papers' formulas: one token, one head, one expert at a time.
//!
//! It reads the same config and the same tensors as the crate, and shares no code with it.

use std::collections::BTreeMap;

use serde_json::Value;

/// Weights by full name, row-major.
pub(crate) type Weights = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A MoE layer's index, and for each token its experts with their weights, the best first.
pub(crate) type Routed = (usize, Vec<Vec<(usize, f64)>>);

/// What the decoder computes for one sequence.
pub(crate) struct Computed {
    /// After the embedding, after each layer but the last, after the final norm: `[T * H]` each.
    pub(crate) hidden: Vec<Vec<f64>>,
    /// `[T * V]`.
    pub(crate) logits: Vec<f64>,
    /// MoE layers.
    pub(crate) routed: Vec<Routed>,
}

/// Which norms a layer has and where its experts lie.
struct Style {
    /// Gemma's: norms after attention and MLP too, `1 + weight`, scaled embedding.
    gemma: bool,
    /// Name of the feed-forward half.
    half: &'static str,
    /// Gate, up and down of an expert.
    expert: [&'static str; 3],
    /// Sigmoid scores with correction and groups, against softmax.
    sigmoid: bool,
}

struct Decoder<'a> {
    config: &'a Value,
    weights: &'a Weights,
    style: Style,
    family: &'a str,
}

/// Runs `ids` through the model of `config`, one of those in the registry but Gemma 4.
pub(crate) fn forward(config: &Value, weights: &Weights, ids: &[u32]) -> Computed {
    let family = config["architectures"][0].as_str().unwrap();
    let proj = ["gate_proj", "up_proj", "down_proj"];
    let style = match family {
        "MixtralForCausalLM" => Style {
            gemma: false,
            half: "block_sparse_moe",
            expert: ["w1", "w3", "w2"],
            sigmoid: false,
        },
        "Gemma3ForCausalLM" => Style { gemma: true, half: "mlp", expert: proj, sigmoid: false },
        "Glm4MoeForCausalLM" => Style { gemma: false, half: "mlp", expert: proj, sigmoid: true },
        _ => Style { gemma: false, half: "mlp", expert: proj, sigmoid: false },
    };
    Decoder { config, weights, style, family }.forward(ids)
}

impl Decoder<'_> {
    fn forward(&self, ids: &[u32]) -> Computed {
        let h = self.size("hidden_size");
        let scale = if self.style.gemma { (h as f64).sqrt() } else { 1.0 };
        let table = self.tensor("model.embed_tokens.weight");
        let mut rows: Vec<Vec<f64>> = ids
            .iter()
            .map(|&id| {
                table[id as usize * h..][..h].iter().map(|&x| f64::from(x) * scale).collect()
            })
            .collect();
        let (mut hidden, mut routed) = (vec![rows.concat()], Vec::new());
        for layer in 0..self.size("num_hidden_layers") {
            rows = self.layer(layer, rows, &mut routed);
            hidden.push(rows.concat());
        }
        hidden.pop();
        let rows: Vec<Vec<f64>> =
            rows.iter().map(|row| self.norm("model.norm.weight", row)).collect();
        hidden.push(rows.concat());
        let tied = self.config["tie_word_embeddings"].as_bool().unwrap_or(self.style.gemma);
        let head = if tied { "model.embed_tokens" } else { "lm_head" };
        let cap = self.config["final_logit_softcapping"].as_f64();
        let capped = |x: f64| cap.map_or(x, |cap| cap * (x / cap).tanh());
        let logits =
            rows.iter().flat_map(|row| self.linear(head, row)).map(capped).collect::<Vec<_>>();
        Computed { hidden, logits, routed }
    }

    fn layer(&self, layer: usize, rows: Vec<Vec<f64>>, routed: &mut Vec<Routed>) -> Vec<Vec<f64>> {
        let at = |name: &str| format!("model.layers.{layer}.{name}");
        let norm = |name: &str, row: &[f64]| self.norm(&at(&format!("{name}.weight")), row);
        let normed: Vec<_> = rows.iter().map(|row| norm("input_layernorm", row)).collect();
        let mut attended = self.attention(layer, &normed);
        if self.style.gemma {
            attended = attended.iter().map(|row| norm("post_attention_layernorm", row)).collect();
        }
        let rows: Vec<_> = rows.iter().zip(&attended).map(|(a, b)| add(a, b)).collect();
        let before =
            if self.style.gemma { "pre_feedforward_layernorm" } else { "post_attention_layernorm" };
        let half = at(self.style.half);
        let mut choices = Vec::new();
        let out: Vec<_> = rows
            .iter()
            .map(|row| {
                let x = norm(before, row);
                let y = match self.is_sparse(layer) {
                    false => self.mlp(&half, ["gate_proj", "up_proj", "down_proj"], &x),
                    true => {
                        let chosen = self.route(&half, &x);
                        let mut y = vec![0.0; x.len()];
                        for &(expert, weight) in &chosen {
                            let name = format!("{half}.experts.{expert}");
                            let out = self.mlp(&name, self.style.expert, &x);
                            y.iter_mut().zip(out).for_each(|(y, out)| *y += weight * out);
                        }
                        choices.push(chosen);
                        match self
                            .weights
                            .contains_key(&format!("{half}.shared_experts.up_proj.weight"))
                        {
                            true => {
                                let name = format!("{half}.shared_experts");
                                add(&y, &self.mlp(&name, ["gate_proj", "up_proj", "down_proj"], &x))
                            }
                            false => y,
                        }
                    }
                };
                let y = if self.style.gemma { norm("post_feedforward_layernorm", &y) } else { y };
                add(row, &y)
            })
            .collect();
        if !choices.is_empty() {
            routed.push((layer, choices));
        }
        out
    }

    fn is_sparse(&self, layer: usize) -> bool {
        let c = self.config;
        match self.family {
            "Gemma3ForCausalLM" => false,
            "Glm4MoeForCausalLM" => layer as u64 >= c["first_k_dense_replace"].as_u64().unwrap(),
            "Qwen3MoeForCausalLM" => {
                let step = c["decoder_sparse_step"].as_u64().unwrap_or(1);
                let dense = c["mlp_only_layers"].as_array();
                let dense = dense.is_some_and(|list| list.contains(&Value::from(layer)));
                !dense && (layer as u64 + 1).is_multiple_of(step)
            }
            _ => true,
        }
    }

    /// Experts of a token and their weights, the best first.
    fn route(&self, half: &str, x: &[f64]) -> Vec<(usize, f64)> {
        let c = self.config;
        let logits = self.linear(&format!("{half}.gate"), x);
        let k = c["num_experts_per_tok"].as_u64().unwrap() as usize;
        let scores: Vec<f64> = match self.style.sigmoid {
            true => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
            false => softmax(&logits),
        };
        let mut choice = scores.clone();
        if self.style.sigmoid {
            let correction = self.tensor(&format!("{half}.gate.e_score_correction_bias"));
            choice.iter_mut().zip(correction).for_each(|(s, c)| *s += f64::from(*c));
            let groups = c["n_group"].as_u64().unwrap_or(1) as usize;
            let kept = c["topk_group"].as_u64().unwrap_or(1) as usize;
            let size = choice.len() / groups;
            let merit: Vec<f64> = choice
                .chunks(size)
                .map(|group| order(group).iter().take(2).map(|&i| group[i]).sum())
                .collect();
            for group in order(&merit).split_off(kept) {
                choice[group * size..][..size].fill(f64::NEG_INFINITY);
            }
        }
        let chosen = &order(&choice)[..k];
        let sum: f64 = chosen.iter().map(|&e| scores[e]).sum();
        let renormalise = match self.family {
            "MixtralForCausalLM" => true,
            _ => c["norm_topk_prob"].as_bool().unwrap(),
        };
        let factor = c["routed_scaling_factor"].as_f64().unwrap_or(1.0);
        let weight = |e: usize| factor * scores[e] / if renormalise { sum } else { 1.0 };
        chosen.iter().map(|&e| (e, weight(e))).collect()
    }

    fn attention(&self, layer: usize, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let c = self.config;
        let at = |name: &str| format!("model.layers.{layer}.self_attn.{name}");
        let heads = self.size("num_attention_heads");
        let kv_heads = c["num_key_value_heads"].as_u64().map_or(heads, |n| n as usize);
        let dim = c["head_dim"].as_u64().map_or(self.size("hidden_size") / heads, |d| d as usize);
        let sliding = self.style.gemma && c["layer_types"][layer] == "sliding_attention";
        let window = match self.family {
            "MixtralForCausalLM" => c["sliding_window"].as_u64(),
            "Qwen3MoeForCausalLM" if c["use_sliding_window"] == true => {
                c["sliding_window"].as_u64()
            }
            "Gemma3ForCausalLM" if sliding => c["sliding_window"].as_u64(),
            _ => None,
        };
        let rope = match self.style.gemma {
            false => &c["rope_parameters"],
            true => &c["rope_parameters"][c["layer_types"][layer].as_str().unwrap()],
        };
        let over_all = self.family == "OlmoeForCausalLM";
        let clip = c["clip_qkv"].as_f64().unwrap_or(f64::INFINITY);
        // Heads of a projection, normalised, clamped and turned.
        let project = |name: &str, norm: Option<&str>, turn: bool| -> Vec<Vec<Vec<f64>>> {
            let norm = norm.map(&at).filter(|name| self.weights.contains_key(name));
            let prepare = |(position, row): (usize, &Vec<f64>)| {
                let mut all = self.linear(&at(name), row);
                if let (true, Some(norm)) = (over_all, &norm) {
                    all = self.norm(norm, &all);
                }
                all.iter_mut().for_each(|x| *x = x.clamp(-clip, clip));
                let head = |head: &[f64]| {
                    let head = match &norm {
                        Some(norm) if !over_all => self.norm(norm, head),
                        _ => head.to_vec(),
                    };
                    if turn { rotate(head, position, rope) } else { head }
                };
                all.chunks(dim).map(head).collect()
            };
            rows.iter().enumerate().map(prepare).collect()
        };
        let q = project("q_proj", Some("q_norm.weight"), true);
        let k = project("k_proj", Some("k_norm.weight"), true);
        let v = project("v_proj", None, false);
        let scale = match self.style.gemma {
            true => c["query_pre_attn_scalar"].as_f64().unwrap().powf(-0.5),
            false => (dim as f64).powf(-0.5),
        };
        (0..rows.len())
            .map(|t| {
                let first = window.map_or(0, |window| (t + 1).saturating_sub(window as usize));
                let mut all = Vec::new();
                for (n, q) in q[t].iter().enumerate() {
                    let of = n / (heads / kv_heads);
                    let scores: Vec<f64> = (first..=t).map(|s| scale * dot(q, &k[s][of])).collect();
                    let mut out = vec![0.0; dim];
                    for (p, s) in softmax(&scores).iter().zip(first..=t) {
                        out.iter_mut().zip(&v[s][of]).for_each(|(out, v)| *out += p * v);
                    }
                    all.extend(out);
                }
                self.linear(&at("o_proj"), &all)
            })
            .collect()
    }

    fn mlp(&self, name: &str, parts: [&str; 3], x: &[f64]) -> Vec<f64> {
        let [gate, up, down] = parts.map(|part| format!("{name}.{part}"));
        let act = |x: f64| match self.style.gemma {
            true => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                0.5 * x * (1.0 + inner.tanh())
            }
            false => x / (1.0 + (-x).exp()),
        };
        let gated: Vec<f64> = self
            .linear(&gate, x)
            .into_iter()
            .zip(self.linear(&up, x))
            .map(|(gate, up)| act(gate) * up)
            .collect();
        self.linear(&down, &gated)
    }

    /// Weight, and bias where there is one.
    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let weight = self.tensor(&format!("{name}.weight"));
        let bias = self.weights.get(&format!("{name}.bias"));
        weight
            .chunks(x.len())
            .enumerate()
            .map(|(i, row)| {
                let product: f64 = row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum();
                product + bias.map_or(0.0, |(_, bias)| f64::from(bias[i]))
            })
            .collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let offset = if self.style.gemma { 1.0 } else { 0.0 };
        let eps = self.config["rms_norm_eps"].as_f64().unwrap();
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let root = (mean + eps).sqrt();
        let weight = self.tensor(name);
        assert_eq!(weight.len(), x.len(), "{name}");
        x.iter().zip(weight).map(|(x, w)| x / root * (f64::from(*w) + offset)).collect()
    }

    fn tensor(&self, name: &str) -> &[f32] {
        &self.weights.get(name).unwrap_or_else(|| panic!("no {name}")).1
    }

    fn size(&self, key: &str) -> usize {
        self.config[key].as_u64().unwrap_or_else(|| panic!("no {key}")) as usize
    }
}

/// Turns the pairs (i, i + R/2) of the first R dimensions: the default and the linear kind.
fn rotate(mut head: Vec<f64>, position: usize, rope: &Value) -> Vec<f64> {
    let fraction = rope["partial_rotary_factor"].as_f64().unwrap_or(1.0);
    let turning = (head.len() as f64 * fraction) as usize;
    let factor = rope["factor"].as_f64().unwrap_or(1.0);
    let theta = rope["rope_theta"].as_f64().unwrap();
    for i in 0..turning / 2 {
        let angle = position as f64 / factor * theta.powf(-2.0 * i as f64 / turning as f64);
        let (sin, cos) = angle.sin_cos();
        let (a, b) = (head[i], head[i + turning / 2]);
        (head[i], head[i + turning / 2]) = (a * cos - b * sin, b * cos + a * sin);
    }
    head
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let all: Vec<f64> = x.iter().map(|x| (x - max).exp()).collect();
    let sum: f64 = all.iter().sum();
    all.iter().map(|x| x / sum).collect()
}

/// Indices by falling value.
fn order(x: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[b].total_cmp(&x[a]));
    order
}

fn add(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
