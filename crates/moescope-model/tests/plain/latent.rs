//! Multi-head latent attention with the keys and values of every head expanded.

use super::{Decoder, attend, rope::Rope};

/// Epsilon of the norms within: the reference's default, whatever the config says.
const EPS: f64 = 1e-6;

impl Decoder<'_> {
    pub(super) fn latent_attention(&self, layer: usize, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let at = |name: &str| format!("model.layers.{layer}.self_attn.{name}");
        let [nope, rope_dim, value, rank] =
            ["qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank"]
                .map(|key| self.size(key));
        let rope = Rope {
            rope: &self.config["rope_parameters"],
            context: self.size("max_position_embeddings"),
            neighbours: self.config["rope_interleave"].as_bool().unwrap_or(true),
        };
        let (mut queries, mut keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (position, row) in rows.iter().enumerate() {
            let turned = |x: &[f64]| rope.turn(x.to_vec(), position, self.length(position));
            let q = match self.config["q_lora_rank"].is_null() {
                true => self.linear(&at("q_proj"), row),
                false => {
                    let latent = self.linear(&at("q_a_proj"), row);
                    let latent = self.norm_by(&at("q_a_layernorm.weight"), &latent, EPS, 0.0);
                    self.linear(&at("q_b_proj"), &latent)
                }
            };
            let latent = self.linear(&at("kv_a_proj_with_mqa"), row);
            let shared = turned(&latent[rank..]);
            let latent = self.norm_by(&at("kv_a_layernorm.weight"), &latent[..rank], EPS, 0.0);
            let expanded = self.linear(&at("kv_b_proj"), &latent);
            let whole = |head: &[f64]| [&head[..nope], &turned(&head[nope..])].concat();
            queries.push(q.chunks(nope + rope_dim).map(whole).collect::<Vec<_>>());
            let each: Vec<&[f64]> = expanded.chunks(nope + value).collect();
            keys.push(each.iter().map(|e| [&e[..nope], &shared].concat()).collect::<Vec<_>>());
            values.push(each.iter().map(|e| e[nope..].to_vec()).collect::<Vec<_>>());
        }
        let scale = ((nope + rope_dim) as f64).powf(-0.5) * rope.score_factor();
        attend(&queries, &keys, &values, scale, None, None)
            .iter()
            .map(|row| self.linear(&at("o_proj"), row))
            .collect()
    }
}
