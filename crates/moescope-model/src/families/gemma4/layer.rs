//! One decoder layer of Gemma 4.

use burn::tensor::{Int, Tensor};

use super::{
    PerLayerInputs,
    config::{Config, KvSource, LayerConfig, MoeConfig},
    stores,
};
use crate::{
    blocks::{
        decoder::Pass,
        mlp::{Mlp, MlpShape},
        moe::Routed,
        tensors::Weights,
    },
    error::Result,
    observer::Component,
    ops::{
        activation::Activation,
        attention::{Heads, KeySpan, Scores, attend},
        experts::{Experts, MoeImpl},
        linear::linear,
        norm::RmsNorm,
        pieces::Pieces,
        router::{Choice, PerExpert, RouterRule, route_to},
    },
};

/// What layers of one pass hand on beside the residual stream.
pub(super) struct Carried {
    /// Per-layer inputs, where the model has them.
    pub(super) inputs: Option<PerLayerInputs>,
    /// Keys and values for later layers, by the layer that made them.
    pub(super) kv: Vec<Option<(Tensor<4>, Tensor<4>, KeySpan)>>,
}

pub(super) struct Layer {
    index: usize,
    input_norm: RmsNorm,
    attention: Attention,
    post_attention_norm: RmsNorm,
    pre_ff_norm: RmsNorm,
    mlp: Mlp,
    moe: Option<Moe>,
    post_ff_norm: RmsNorm,
    per_layer: Option<PerLayerBlock>,
    scalar: f32,
}

impl Layer {
    pub(super) fn load(
        w: &Weights<'_>,
        config: &Config,
        index: usize,
        layer: &LayerConfig,
        moe_impl: MoeImpl,
    ) -> Result<Self> {
        let h = config.hidden;
        let norm = |tensor: &str| w.norm(&format!("{tensor}.weight"), h, config.eps, 0.0);
        let mlp = MlpShape { hidden: h, inner: layer.mlp, activation: config.activation };
        Ok(Layer {
            index,
            input_norm: norm("input_layernorm")?,
            attention: Attention::load(&w.within("self_attn"), config, index, layer)?,
            post_attention_norm: norm("post_attention_layernorm")?,
            pre_ff_norm: norm("pre_feedforward_layernorm")?,
            mlp: mlp.load(&w.within("mlp"))?,
            moe: match config.moe {
                None => None,
                Some(moe) => Some(Moe {
                    mlp_norm: norm("post_feedforward_layernorm_1")?,
                    router: Router::load(&w.within("router"), config, moe)?,
                    pre_norm: norm("pre_feedforward_layernorm_2")?,
                    routed: Routed {
                        spec: moe.spec(index),
                        experts: Experts {
                            gate_up: w
                                .weight("experts.gate_up_proj", [moe.experts, 2 * moe.inner, h])?,
                            down: w.weight("experts.down_proj", [moe.experts, h, moe.inner])?,
                            biases: None,
                            activation: config.activation,
                        },
                        implementation: moe_impl,
                    },
                    post_norm: norm("post_feedforward_layernorm_2")?,
                }),
            },
            post_ff_norm: norm("post_feedforward_layernorm")?,
            per_layer: match config.per_layer {
                None => None,
                Some(ple) => Some(PerLayerBlock {
                    gate: w.weight("per_layer_input_gate.weight", [ple.width, h])?,
                    activation: config.activation,
                    projection: w.weight("per_layer_projection.weight", [h, ple.width])?,
                    norm: norm("post_per_layer_input_norm")?,
                }),
            },
            scalar: w.scalar("layer_scalar")?,
        })
    }

    pub(super) fn forward(
        &self,
        x: Tensor<2>,
        carried: &mut Carried,
        pass: &mut Pass<'_>,
    ) -> Tensor<2> {
        let layer = Some(self.index as u16);
        let normed = self.input_norm.forward(x.clone());
        let attended = self.attention.forward(normed, self.index, carried, pass);
        let x = self.post_attention_norm.add_to(x, attended, 1.0);
        pass.observer.component_done(layer, Component::Attention);

        let dense = self.mlp.forward(self.pre_ff_norm.forward(x.clone()));
        pass.observer.component_done(layer, Component::Mlp);
        let ff = match &self.moe {
            None => dense,
            Some(moe) => {
                let forced = pass.forced_experts(&moe.routed.spec);
                let choice = moe.router.forward(x.clone(), forced);
                pass.observer.component_done(layer, Component::Router);
                let sum = moe.routed.forward(moe.pre_norm.forward(x.clone()), choice, pass);
                moe.post_norm.add_to(moe.mlp_norm.forward(dense), sum, 1.0)
            }
        };
        let input = carried.inputs.as_ref().map(|inputs| inputs.of_layer(self.index));
        let x = match (&self.per_layer, input) {
            (Some(block), Some(input)) => {
                let x = self.post_ff_norm.add_to(x, ff, 1.0);
                block.norm.add_to(x.clone(), block.forward(x, input), self.scalar)
            }
            _ => self.post_ff_norm.add_to(x, ff, self.scalar),
        };
        pass.observer.component_done(layer, Component::Rest);
        x
    }
}

struct Attention {
    /// Queries, then keys and values where the layer has its own: one product for all.
    qkv: Pieces<2>,
    q_norm: RmsNorm,
    k_norm: Option<RmsNorm>,
    v_norm: RmsNorm,
    out: Pieces<2>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    /// Which of the decoder's rotary embeddings.
    rope: usize,
    source: KvSource,
    k_eq_v: bool,
    /// Whether later layers use these keys and values.
    stores: bool,
}

impl Attention {
    fn load(w: &Weights<'_>, config: &Config, index: usize, layer: &LayerConfig) -> Result<Self> {
        let (q, kv) = (config.heads * layer.head_dim, layer.kv_heads * layer.head_dim);
        let norm = |tensor: &str| w.norm(tensor, layer.head_dim, config.eps, 0.0);
        let own = layer.source == KvSource::Own;
        let mut parts = vec![("q_proj.weight", q)];
        if own {
            parts.push(("k_proj.weight", kv));
            if !layer.k_eq_v {
                parts.push(("v_proj.weight", kv));
            }
        }
        Ok(Attention {
            qkv: w.stacked(&parts, config.hidden)?,
            q_norm: norm("q_norm.weight")?,
            k_norm: if own { Some(norm("k_norm.weight")?) } else { None },
            v_norm: RmsNorm { weight: None, eps: config.eps },
            out: w.weight("o_proj.weight", [config.hidden, q])?,
            heads: config.heads,
            kv_heads: layer.kv_heads,
            head_dim: layer.head_dim,
            rope: layer.kind as usize,
            source: layer.source,
            k_eq_v: layer.k_eq_v,
            stores: stores(config, index),
        })
    }

    fn forward(
        &self,
        x: Tensor<2>,
        index: usize,
        carried: &mut Carried,
        pass: &mut Pass<'_>,
    ) -> Tensor<2> {
        let rotation = Some(&pass.rotations[self.rope]);
        let qkv = linear(x, &self.qkv);
        let (q_end, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let queries = Heads { norm: Some(&self.q_norm), rotation };
        let q = queries.split(&qkv, 0..q_end, [pass.batch, self.heads, pass.seq, self.head_dim]);
        let (k, v, span) = match (self.source, &self.k_norm) {
            (KvSource::Own, k_norm) => {
                let dims = [pass.batch, self.kv_heads, pass.seq, self.head_dim];
                let keys = q_end..q_end + kv;
                let values = if self.k_eq_v { keys.clone() } else { keys.end..keys.end + kv };
                let key_heads = Heads { norm: k_norm.as_ref(), rotation };
                let value_heads = Heads { norm: Some(&self.v_norm), rotation: None };
                let k = key_heads.split(&qkv, keys, dims);
                let v = value_heads.split(&qkv, values, dims);
                let (k, v, span) = pass.cache.extend(index, k, v);
                if self.stores {
                    carried.kv[index] = Some((k.clone(), v.clone(), span));
                }
                (k, v, span)
            }
            (KvSource::Layer(source), _) => match carried.kv[source].clone() {
                Some(kv) => kv,
                // A source lies before the layers that use it and stores what it made.
                None => unreachable!("layer {source} stored no keys"),
            },
        };
        // The reference scales by 1: the q and k norms keep scores in range.
        let scores = Scores::scaled(1.0);
        linear(attend(q, k, v, &span, &scores), &self.out)
    }
}

struct Moe {
    mlp_norm: RmsNorm,
    router: Router,
    pre_norm: RmsNorm,
    routed: Routed,
    post_norm: RmsNorm,
}

struct Router {
    /// The scale-free norm, `scale` and 1/sqrt(H) as one norm.
    norm: RmsNorm,
    /// `[E, H]`, f32: which experts run must not depend on the compute type.
    projection: Pieces<2>,
    rule: RouterRule,
    expert_scale: Tensor<1>,
}

impl Router {
    fn load(w: &Weights<'_>, config: &Config, moe: MoeConfig) -> Result<Self> {
        let root = (config.hidden as f32).powf(-0.5);
        let scale = w.exact("scale", [config.hidden])? * root;
        Ok(Router {
            norm: RmsNorm::new(scale, config.eps),
            projection: w.exact("proj.weight", [moe.experts, config.hidden])?.into(),
            rule: RouterRule::softmax_renormalised(moe.top_k),
            expert_scale: w.exact("per_expert_scale", [moe.experts])?,
        })
    }

    fn forward(&self, x: Tensor<2>, forced: Option<Tensor<2, Int>>) -> Choice {
        let logits = linear(self.norm.forward(x), &self.projection);
        let scale = Some(&self.expert_scale);
        route_to(logits, self.rule, PerExpert { scale, ..PerExpert::default() }, forced)
    }
}

/// Per-layer embedding block: gates the layer's own input vector with the residual stream.
struct PerLayerBlock {
    gate: Pieces<2>,
    activation: Activation,
    projection: Pieces<2>,
    norm: RmsNorm,
}

impl PerLayerBlock {
    fn forward(&self, x: Tensor<2>, input: Tensor<2>) -> Tensor<2> {
        let gated = self.activation.apply(linear(x, &self.gate)) * input;
        linear(gated, &self.projection)
    }
}
