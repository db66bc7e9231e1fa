//! Gemma 4: experts beside a dense MLP, keys that are values, layers that use the keys of others, per-layer
//! embeddings.

use super::{Computed, Decoder, add, attend, order, rope::Rope, softmax};

/// Keys and values of a layer: `[T][heads][D]` each.
type Kv = (Vec<Vec<Vec<f64>>>, Vec<Vec<Vec<f64>>>);

impl Decoder<'_> {
    pub(super) fn gemma4(&self, ids: &[u32]) -> Computed {
        let h = self.size("hidden_size");
        let mut rows = self.embed(ids, (h as f64).sqrt());
        let inputs: Vec<_> =
            rows.iter().zip(ids).map(|(row, id)| self.per_layer_inputs(row, *id)).collect();
        let (mut hidden, mut routed) = (vec![rows.concat()], Vec::new());
        let mut kvs: Vec<Kv> = Vec::new();
        for layer in 0..self.size("num_hidden_layers") {
            let normed: Vec<_> =
                rows.iter().map(|row| self.layer_norm(layer, "input_layernorm", row)).collect();
            let attended = self.gemma4_attention(layer, &normed, &mut kvs);
            let mut choices = Vec::new();
            let each = rows.iter().zip(&attended).zip(&inputs);
            rows = each
                .map(|((row, attended), inputs)| {
                    let attended = self.layer_norm(layer, "post_attention_layernorm", attended);
                    self.gemma4_half(layer, &add(row, &attended), inputs, &mut choices)
                })
                .collect();
            if !choices.is_empty() {
                routed.push((layer, choices));
            }
            hidden.push(rows.concat());
        }
        hidden.pop();
        self.end(rows, hidden, routed)
    }

    /// What a layer does after attention.
    fn gemma4_half(
        &self,
        layer: usize,
        row: &[f64],
        inputs: &[f64],
        choices: &mut Vec<Vec<(usize, f64)>>,
    ) -> Vec<f64> {
        let at = |name: &str| format!("model.layers.{layer}.{name}");
        let norm = |name: &str, x: &[f64]| self.layer_norm(layer, name, x);
        let parts = ["gate_proj", "up_proj", "down_proj"];
        let mut out = self.mlp(&at("mlp"), parts, &norm("pre_feedforward_layernorm", row));
        if self.config["enable_moe_block"] == true {
            let x = norm("pre_feedforward_layernorm_2", row);
            let chosen = self.gemma4_route(layer, row);
            let mut sum = vec![0.0; row.len()];
            for &(expert, weight) in &chosen {
                let y = self.gemma4_expert(layer, expert, &x);
                sum.iter_mut().zip(y).for_each(|(sum, y)| *sum += weight * y);
            }
            choices.push(chosen);
            let dense = norm("post_feedforward_layernorm_1", &out);
            out = add(&dense, &norm("post_feedforward_layernorm_2", &sum));
        }
        let mut row = add(row, &norm("post_feedforward_layernorm", &out));
        let width = self.config["hidden_size_per_layer_input"].as_u64().unwrap_or(256) as usize;
        if width > 0 {
            let gate = self.linear(&at("per_layer_input_gate"), &row);
            let own = &inputs[layer * width..][..width];
            let gated: Vec<f64> = gate.iter().zip(own).map(|(g, x)| self.act(*g) * x).collect();
            let projected = self.linear(&at("per_layer_projection"), &gated);
            row = add(&row, &norm("post_per_layer_input_norm", &projected));
        }
        let scalar = f64::from(self.tensor(&at("layer_scalar"))[0]);
        row.iter().map(|x| x * scalar).collect()
    }

    fn gemma4_route(&self, layer: usize, row: &[f64]) -> Vec<(usize, f64)> {
        let at = |name: &str| format!("model.layers.{layer}.router.{name}");
        let x = self.norm(&at("scale"), row);
        let root = (x.len() as f64).sqrt();
        let x: Vec<f64> = x.iter().map(|x| x / root).collect();
        let scores = softmax(&self.linear(&at("proj"), &x));
        let chosen = &order(&scores)[..self.size("top_k_experts")];
        let sum: f64 = chosen.iter().map(|&e| scores[e]).sum();
        let own = self.tensor(&at("per_expert_scale"));
        chosen.iter().map(|&e| (e, scores[e] / sum * f64::from(own[e]))).collect()
    }

    fn gemma4_expert(&self, layer: usize, expert: usize, x: &[f64]) -> Vec<f64> {
        let name = format!("model.layers.{layer}.experts");
        let (h, inner) = (x.len(), self.size("moe_intermediate_size"));
        let row = |tensor: &str, i: usize, x: &[f64]| -> f64 {
            let row = &self.tensor(&format!("{name}.{tensor}"))[i * x.len()..][..x.len()];
            row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum()
        };
        let gate_up = |i: usize| row("gate_up_proj", expert * 2 * inner + i, x);
        let gated: Vec<f64> =
            (0..inner).map(|i| self.act(gate_up(i)) * gate_up(inner + i)).collect();
        (0..h).map(|i| row("down_proj", expert * h + i, &gated)).collect()
    }

    /// Whether each layer sees all tokens; the last always does.
    fn is_full(&self, layer: usize) -> bool {
        let last = layer + 1 == self.size("num_hidden_layers");
        let types = self.config["layer_types"].as_array();
        last || types.map_or((layer + 1).is_multiple_of(6), |t| t[layer] == "full_attention")
    }

    fn gemma4_attention(
        &self,
        layer: usize,
        rows: &[Vec<f64>],
        kvs: &mut Vec<Kv>,
    ) -> Vec<Vec<f64>> {
        let c = self.config;
        let at = |name: &str| format!("model.layers.{layer}.self_attn.{name}");
        let full = self.is_full(layer);
        let dim = if full { self.size("global_head_dim") } else { self.size("head_dim") };
        let same = full && c["attention_k_eq_v"] == true;
        let kind = if full { "full_attention" } else { "sliding_attention" };
        let rope = Rope {
            rope: &c["rope_parameters"][kind],
            context: self.size("max_position_embeddings"),
            neighbours: false,
        };
        let turned = |head: Vec<f64>, t: usize| rope.turn(head, t, self.length(t));
        let heads = |name: &str, each: &dyn Fn(&[f64], usize) -> Vec<f64>| {
            let of = |(t, row): (usize, &Vec<f64>)| -> Vec<Vec<f64>> {
                self.linear(&at(name), row).chunks(dim).map(|head| each(head, t)).collect()
            };
            rows.iter().enumerate().map(of).collect::<Vec<_>>()
        };
        let q = heads("q_proj", &|head, t| turned(self.norm(&at("q_norm.weight"), head), t));
        let first = self.size("num_hidden_layers")
            - c["num_kv_shared_layers"].as_u64().unwrap_or(0) as usize;
        let (k, v) = match layer < first {
            true => (
                heads("k_proj", &|head, t| turned(self.norm(&at("k_norm.weight"), head), t)),
                heads(if same { "k_proj" } else { "v_proj" }, &|head, _| self.unit(head)),
            ),
            false => {
                let source = (0..first).rev().find(|i| self.is_full(*i) == full).unwrap();
                kvs[source].clone()
            }
        };
        let window = (!full).then(|| self.size("sliding_window"));
        let out = attend(&q, &k, &v, 1.0, window, None);
        kvs.push((k, v));
        out.iter().map(|row| self.linear(&at("o_proj"), row)).collect()
    }

    /// The vectors of a token for all layers, one after the other; none where the model has none.
    fn per_layer_inputs(&self, embedded: &[f64], id: u32) -> Vec<f64> {
        let width = self.config["hidden_size_per_layer_input"].as_u64().unwrap_or(256) as usize;
        if width == 0 {
            return Vec::new();
        }
        let all = width * self.size("num_hidden_layers");
        let own = &self.tensor("model.embed_tokens_per_layer.weight")[id as usize * all..][..all];
        let root = (embedded.len() as f64).sqrt();
        let projected = self.linear("model.per_layer_model_projection", embedded);
        let projected: Vec<f64> = projected.iter().map(|x| x / root).collect();
        let projected = projected
            .chunks(width)
            .flat_map(|part| self.norm("model.per_layer_projection_norm.weight", part));
        let both = |(own, projected): (&f32, f64)| {
            (f64::from(*own) * (width as f64).sqrt() + projected) / 2f64.sqrt()
        };
        own.iter().zip(projected).map(both).collect()
    }

    fn layer_norm(&self, layer: usize, name: &str, x: &[f64]) -> Vec<f64> {
        self.norm(&format!("model.layers.{layer}.{name}.weight"), x)
    }
}
