//! A plain, slow decoder in f64, written from the papers' formulas: one token, one head, one expert at a time.
//!
//! It reads the same config and the same tensors as the crate, and shares no code with it.

mod gemma4;
mod latent;
mod rope;

use std::collections::BTreeMap;

use serde_json::Value;

use self::rope::Rope;

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
    /// Gemma's: scaled embedding, GELU, a tied head; of Gemma 3 also norms after attention and MLP.
    gemma: bool,
    /// What norms add to their weights.
    offset: f64,
    /// Name of the feed-forward half.
    half: &'static str,
    /// Gate, up and down of an expert; all experts in one tensor where there are none.
    expert: Option<[&'static str; 3]>,
    /// Sigmoid scores with correction and groups, against softmax.
    sigmoid: bool,
}

struct Decoder<'a> {
    config: &'a Value,
    weights: &'a Weights,
    style: Style,
    family: &'a str,
    /// Tokens in each pass; only the dynamic kind of rotary embedding tells.
    passes: &'a [usize],
}

/// Runs `ids` through the model of `config`, one of those in the registry.
pub(crate) fn forward(config: &Value, weights: &Weights, ids: &[u32]) -> Computed {
    forward_in(config, weights, ids, &[ids.len()])
}

/// The same in passes over so many tokens each, the later ones with the keys and values of the earlier.
pub(crate) fn forward_in(
    config: &Value,
    weights: &Weights,
    ids: &[u32],
    passes: &[usize],
) -> Computed {
    let family = config["architectures"][0].as_str().unwrap();
    let usual = Style {
        gemma: false,
        offset: 0.0,
        half: "mlp",
        expert: Some(["gate_proj", "up_proj", "down_proj"]),
        sigmoid: false,
    };
    let style = match family {
        "MixtralForCausalLM" => {
            Style { half: "block_sparse_moe", expert: Some(["w1", "w3", "w2"]), ..usual }
        }
        "Gemma3ForCausalLM" => Style { gemma: true, offset: 1.0, ..usual },
        "Gemma4ForCausalLM" => Style { gemma: true, ..usual },
        "GptOssForCausalLM" => Style { expert: None, ..usual },
        "Glm4MoeForCausalLM" | "DeepseekV3ForCausalLM" => Style { sigmoid: true, ..usual },
        _ => usual,
    };
    let decoder = Decoder { config, weights, style, family, passes };
    match family {
        "Gemma4ForCausalLM" => decoder.gemma4(ids),
        _ => decoder.forward(ids),
    }
}

impl Decoder<'_> {
    fn forward(&self, ids: &[u32]) -> Computed {
        let h = self.size("hidden_size");
        let mut rows = self.embed(ids, if self.style.gemma { (h as f64).sqrt() } else { 1.0 });
        let (mut hidden, mut routed) = (vec![rows.concat()], Vec::new());
        for layer in 0..self.size("num_hidden_layers") {
            rows = self.layer(layer, rows, &mut routed);
            hidden.push(rows.concat());
        }
        hidden.pop();
        self.end(rows, hidden, routed)
    }

    fn embed(&self, ids: &[u32], scale: f64) -> Vec<Vec<f64>> {
        let h = self.size("hidden_size");
        let table = self.tensor("model.embed_tokens.weight");
        let row = |id: &u32| {
            table[*id as usize * h..][..h].iter().map(|&x| f64::from(x) * scale).collect()
        };
        ids.iter().map(row).collect()
    }

    /// Final norm and head.
    fn end(&self, rows: Vec<Vec<f64>>, mut hidden: Vec<Vec<f64>>, routed: Vec<Routed>) -> Computed {
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

    /// Tokens of the sequence once the pass over this position is done.
    fn length(&self, position: usize) -> usize {
        let mut length = 0;
        for pass in self.passes {
            length += pass;
            if position < length {
                return length;
            }
        }
        panic!("no pass over position {position}")
    }

    fn layer(&self, layer: usize, rows: Vec<Vec<f64>>, routed: &mut Vec<Routed>) -> Vec<Vec<f64>> {
        let at = |name: &str| format!("model.layers.{layer}.{name}");
        let norm = |name: &str, row: &[f64]| self.norm(&at(&format!("{name}.weight")), row);
        let normed: Vec<_> = rows.iter().map(|row| norm("input_layernorm", row)).collect();
        let mut attended = match self.family {
            "DeepseekV3ForCausalLM" => self.latent_attention(layer, &normed),
            _ => self.attention(layer, &normed),
        };
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
                            let out = match self.style.expert {
                                Some(parts) => {
                                    self.mlp(&format!("{half}.experts.{expert}"), parts, &x)
                                }
                                None => self.packed_expert(&half, expert, &x),
                            };
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
            "Glm4MoeForCausalLM" | "DeepseekV3ForCausalLM" => {
                let step = c["moe_layer_freq"].as_u64().unwrap_or(1);
                let first = c["first_k_dense_replace"].as_u64().unwrap();
                layer as u64 >= first && (layer as u64).is_multiple_of(step)
            }
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
        let packed = self.style.expert.is_none();
        let logits = self.linear(&format!("{half}.{}", if packed { "router" } else { "gate" }), x);
        let k = c["num_experts_per_tok"].as_u64().unwrap() as usize;
        let scores: Vec<f64> = match self.style.sigmoid {
            true => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
            false => softmax(&logits),
        };
        let mut choice = scores.clone();
        if self.style.sigmoid {
            let correction = self.tensor(&format!("{half}.gate.e_score_correction_bias"));
            choice.iter_mut().zip(correction).for_each(|(s, c)| *s += f64::from(*c));
            // Of eight groups four, where DeepSeek-V3 does not say.
            let (all, four) = if self.family == "DeepseekV3ForCausalLM" { (8, 4) } else { (1, 1) };
            let groups = c["n_group"].as_u64().unwrap_or(all) as usize;
            let kept = c["topk_group"].as_u64().unwrap_or(four) as usize;
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
            "MixtralForCausalLM" | "GptOssForCausalLM" => true,
            "DeepseekV3ForCausalLM" => c["norm_topk_prob"].as_bool().unwrap_or(true),
            _ => c["norm_topk_prob"].as_bool().unwrap(),
        };
        let usual = if self.family == "DeepseekV3ForCausalLM" { 2.5 } else { 1.0 };
        let factor = c["routed_scaling_factor"].as_f64().unwrap_or(usual);
        let weight = |e: usize| factor * scores[e] / if renormalise { sum } else { 1.0 };
        chosen.iter().map(|&e| (e, weight(e))).collect()
    }

    fn attention(&self, layer: usize, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let c = self.config;
        let at = |name: &str| format!("model.layers.{layer}.self_attn.{name}");
        let heads = self.size("num_attention_heads");
        let dim = c["head_dim"].as_u64().map_or(self.size("hidden_size") / heads, |d| d as usize);
        let sliding = match c["layer_types"].as_array() {
            Some(types) => types[layer] == "sliding_attention",
            // Of the one family here that has a pattern of its own.
            None => layer.is_multiple_of(2),
        };
        let window = match self.family {
            "MixtralForCausalLM" => c["sliding_window"].as_u64(),
            "Qwen3MoeForCausalLM" if c["use_sliding_window"] == true => {
                c["sliding_window"].as_u64()
            }
            "Gemma3ForCausalLM" | "GptOssForCausalLM" if sliding => c["sliding_window"].as_u64(),
            _ => None,
        };
        let rope = match self.style.gemma {
            false => &c["rope_parameters"],
            true => &c["rope_parameters"][c["layer_types"][layer].as_str().unwrap()],
        };
        let context = self.size("max_position_embeddings");
        let rope = Rope { rope, context, neighbours: false };
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
                    match turn {
                        true => rope.turn(head, position, self.length(position)),
                        false => head,
                    }
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
        let sinks = self.weights.get(&at("sinks")).map(|(_, sinks)| sinks.as_slice());
        attend(&q, &k, &v, scale, window.map(|window| window as usize), sinks)
            .iter()
            .map(|row| self.linear(&at("o_proj"), row))
            .collect()
    }

    /// An expert of gpt-oss: gate and up projection interleaved column by column, clamped, with biases.
    fn packed_expert(&self, half: &str, expert: usize, x: &[f64]) -> Vec<f64> {
        let c = self.config;
        let alpha = c["swiglu_alpha"].as_f64().unwrap_or(1.702);
        let limit = c["swiglu_limit"].as_f64().unwrap_or(7.0);
        let (h, inner) = (x.len(), self.size("intermediate_size"));
        // Column `j` of the expert's matrix `[inputs, columns]`, and its bias.
        let column = |name: &str, j: usize, columns: usize, x: &[f64]| -> f64 {
            let name = format!("{half}.experts.{name}");
            let (weight, bias) = (self.tensor(&name), self.tensor(&format!("{name}_bias")));
            let at = |i: usize| f64::from(weight[(expert * x.len() + i) * columns + j]);
            let product: f64 = x.iter().enumerate().map(|(i, x)| at(i) * x).sum();
            product + f64::from(bias[expert * columns + j])
        };
        let gated = |i: usize| {
            let gate = column("gate_up_proj", 2 * i, 2 * inner, x).min(limit);
            let up = column("gate_up_proj", 2 * i + 1, 2 * inner, x).clamp(-limit, limit);
            (up + 1.0) * gate / (1.0 + (-alpha * gate).exp())
        };
        let gated: Vec<f64> = (0..inner).map(gated).collect();
        (0..h).map(|j| column("down_proj", j, h, &gated)).collect()
    }

    /// What is applied to gates.
    fn act(&self, x: f64) -> f64 {
        match self.style.gemma {
            true => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                0.5 * x * (1.0 + inner.tanh())
            }
            false => x / (1.0 + (-x).exp()),
        }
    }

    fn mlp(&self, name: &str, parts: [&str; 3], x: &[f64]) -> Vec<f64> {
        let [gate, up, down] = parts.map(|part| format!("{name}.{part}"));
        let gated: Vec<f64> = self
            .linear(&gate, x)
            .into_iter()
            .zip(self.linear(&up, x))
            .map(|(gate, up)| self.act(gate) * up)
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
        let eps = self.config["rms_norm_eps"].as_f64().unwrap();
        self.norm_by(name, x, eps, self.style.offset)
    }

    fn norm_by(&self, name: &str, x: &[f64], eps: f64, offset: f64) -> Vec<f64> {
        let weight = self.tensor(name);
        assert_eq!(weight.len(), x.len(), "{name}");
        let root = (mean_square(x) + eps).sqrt();
        x.iter().zip(weight).map(|(x, w)| x / root * (f64::from(*w) + offset)).collect()
    }

    /// A norm without a weight.
    fn unit(&self, x: &[f64]) -> Vec<f64> {
        let root = (mean_square(x) + self.config["rms_norm_eps"].as_f64().unwrap()).sqrt();
        x.iter().map(|x| x / root).collect()
    }

    fn tensor(&self, name: &str) -> &[f32] {
        &self.weights.get(name).unwrap_or_else(|| panic!("no {name}")).1
    }

    fn size(&self, key: &str) -> usize {
        self.config[key].as_u64().unwrap_or_else(|| panic!("no {key}")) as usize
    }
}

/// One query after the other over the keys it sees: `[T][heads * Dv]`. Keys and values may have fewer heads; a
/// sink is one more score without a value.
fn attend(
    queries: &[Vec<Vec<f64>>],
    keys: &[Vec<Vec<f64>>],
    values: &[Vec<Vec<f64>>],
    scale: f64,
    window: Option<usize>,
    sinks: Option<&[f32]>,
) -> Vec<Vec<f64>> {
    let group = queries[0].len() / keys[0].len();
    let one = |t: usize, n: usize| {
        let (of, q) = (n / group, &queries[t][n]);
        let first = window.map_or(0, |window| (t + 1).saturating_sub(window));
        let mut scores: Vec<f64> = (first..=t).map(|s| scale * dot(q, &keys[s][of])).collect();
        scores.extend(sinks.map(|sinks| f64::from(sinks[n])));
        let mut out = vec![0.0; values[0][of].len()];
        for (p, s) in softmax(&scores).iter().zip(first..=t) {
            out.iter_mut().zip(&values[s][of]).for_each(|(out, v)| *out += p * v);
        }
        out
    };
    let all = |t: usize| (0..queries[t].len()).flat_map(|n| one(t, n)).collect();
    (0..queries.len()).map(all).collect()
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

fn mean_square(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64
}
