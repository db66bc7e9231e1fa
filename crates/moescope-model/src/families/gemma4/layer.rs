//! One decoder layer of Gemma 4.

use burn::tensor::Tensor;

use super::{
    config::{Config, KvSource, LayerConfig, LayerType, MoeConfig},
    stores,
};
use crate::{
    cache::KvCache,
    checkpoint::Loader,
    error::Result,
    observer::{Component, Observer, Routing},
    ops::{
        activation::Activation,
        attention::{Heads, KeySpan, Scores, attend},
        experts::{Experts, MoeImpl},
        linear::linear,
        norm::RmsNorm,
        rope::Rotation,
        router::{Choice, RouterRule, route},
    },
};

/// What all layers of one forward pass share.
pub(super) struct Step {
    pub(super) batch: usize,
    pub(super) seq: usize,
    pub(super) sliding: Rotation,
    pub(super) full: Rotation,
}

/// Keys and values handed to later layers, by the layer that made them.
pub(super) struct Shared(Vec<Option<(Tensor<4>, Tensor<4>, KeySpan)>>);

impl Shared {
    pub(super) fn new(layers: usize) -> Self {
        Shared(vec![None; layers])
    }
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
        w: &Loader<'_>,
        config: &Config,
        index: usize,
        layer: &LayerConfig,
        moe_impl: MoeImpl,
    ) -> Result<Self> {
        let name = |tensor: &str| format!("layers.{index}.{tensor}");
        let norm = |tensor: &str| {
            let weight = w.vector(&name(&format!("{tensor}.weight")), [config.hidden])?;
            Ok(RmsNorm::new(weight, config.eps))
        };
        Ok(Layer {
            index,
            input_norm: norm("input_layernorm")?,
            attention: Attention::load(w, config, index, layer)?,
            post_attention_norm: norm("post_attention_layernorm")?,
            pre_ff_norm: norm("pre_feedforward_layernorm")?,
            mlp: Mlp {
                gate_up: w.stacked(
                    &[
                        (name("mlp.gate_proj.weight"), layer.mlp),
                        (name("mlp.up_proj.weight"), layer.mlp),
                    ],
                    config.hidden,
                )?,
                down: w.weight(&name("mlp.down_proj.weight"), [config.hidden, layer.mlp])?,
                activation: config.activation,
            },
            moe: match config.moe {
                None => None,
                Some(moe) => Some(Moe {
                    mlp_norm: norm("post_feedforward_layernorm_1")?,
                    router: Router::load(w, config, moe, &name)?,
                    pre_norm: norm("pre_feedforward_layernorm_2")?,
                    experts: Experts {
                        gate_up: w.weight(
                            &name("experts.gate_up_proj"),
                            [moe.experts, 2 * moe.inner, config.hidden],
                        )?,
                        down: w.weight(
                            &name("experts.down_proj"),
                            [moe.experts, config.hidden, moe.inner],
                        )?,
                        activation: config.activation,
                    },
                    implementation: moe_impl,
                    post_norm: norm("post_feedforward_layernorm_2")?,
                }),
            },
            post_ff_norm: norm("post_feedforward_layernorm")?,
            per_layer: match config.per_layer {
                None => None,
                Some(ple) => Some(PerLayerBlock {
                    gate: w
                        .weight(&name("per_layer_input_gate.weight"), [ple.width, config.hidden])?,
                    activation: config.activation,
                    projection: w
                        .weight(&name("per_layer_projection.weight"), [config.hidden, ple.width])?,
                    norm: norm("post_per_layer_input_norm")?,
                }),
            },
            scalar: w.host(&name("layer_scalar"), 1)?[0],
        })
    }

    pub(super) fn forward(
        &self,
        x: Tensor<2>,
        per_layer_input: Option<Tensor<2>>,
        step: &Step,
        cache: &mut KvCache,
        shared: &mut Shared,
        observer: &mut dyn Observer,
    ) -> Tensor<2> {
        let layer = self.index as u16;
        let normed = self.input_norm.forward(x.clone());
        let attended = self.attention.forward(normed, self.index, step, cache, shared);
        let x = self.post_attention_norm.add_to(x, attended, 1.0);
        observer.component_done(Some(layer), Component::Attention);

        let dense = self.mlp.forward(self.pre_ff_norm.forward(x.clone()));
        observer.component_done(Some(layer), Component::Mlp);
        let ff = match &self.moe {
            None => dense,
            Some(moe) => {
                let choice = moe.router.forward(x.clone());
                observer.component_done(Some(layer), Component::Router);
                let normed = moe.pre_norm.forward(x.clone());
                let sum = moe.experts.forward(normed, &choice, moe.implementation);
                observer.component_done(Some(layer), Component::Experts);
                observer.routed(Routing {
                    layer,
                    probs: choice.probs,
                    experts: choice.experts,
                    weights: choice.weights,
                });
                moe.post_norm.add_to(moe.mlp_norm.forward(dense), sum, 1.0)
            }
        };
        let x = match (&self.per_layer, per_layer_input) {
            (Some(block), Some(input)) => {
                let x = self.post_ff_norm.add_to(x, ff, 1.0);
                block.norm.add_to(x.clone(), block.forward(x, input), self.scalar)
            }
            _ => self.post_ff_norm.add_to(x, ff, self.scalar),
        };
        observer.component_done(Some(layer), Component::Rest);
        x
    }
}

struct Attention {
    /// Queries, then keys and values where the layer has its own: one product for all.
    qkv: Tensor<2>,
    q_norm: RmsNorm,
    k_norm: Option<RmsNorm>,
    v_norm: RmsNorm,
    out: Tensor<2>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    kind: LayerType,
    source: KvSource,
    k_eq_v: bool,
    /// Whether later layers use these keys and values.
    stores: bool,
}

impl Attention {
    fn load(w: &Loader<'_>, config: &Config, index: usize, layer: &LayerConfig) -> Result<Self> {
        let name = |tensor: &str| format!("layers.{index}.self_attn.{tensor}.weight");
        let (q, kv) = (config.heads * layer.head_dim, layer.kv_heads * layer.head_dim);
        let norm =
            |tensor: &str| Ok(RmsNorm::new(w.vector(&name(tensor), [layer.head_dim])?, config.eps));
        let own = layer.source == KvSource::Own;
        let mut parts = vec![(name("q_proj"), q)];
        if own {
            parts.push((name("k_proj"), kv));
            if !layer.k_eq_v {
                parts.push((name("v_proj"), kv));
            }
        }
        Ok(Attention {
            qkv: w.stacked(&parts, config.hidden)?,
            q_norm: norm("q_norm")?,
            k_norm: if own { Some(norm("k_norm")?) } else { None },
            v_norm: RmsNorm { weight: None, eps: config.eps },
            out: w.weight(&name("o_proj"), [config.hidden, q])?,
            heads: config.heads,
            kv_heads: layer.kv_heads,
            head_dim: layer.head_dim,
            kind: layer.kind,
            source: layer.source,
            k_eq_v: layer.k_eq_v,
            stores: stores(config, index),
        })
    }

    fn forward(
        &self,
        x: Tensor<2>,
        index: usize,
        step: &Step,
        cache: &mut KvCache,
        shared: &mut Shared,
    ) -> Tensor<2> {
        let rotation = match self.kind {
            LayerType::Sliding => &step.sliding,
            LayerType::Full => &step.full,
        };
        let qkv = linear(x, &self.qkv);
        let (q_end, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let queries = Heads { norm: Some(&self.q_norm), rotation: Some(rotation) };
        let q = queries.split(&qkv, 0..q_end, [step.batch, self.heads, step.seq, self.head_dim]);
        let (k, v, span) = match (self.source, &self.k_norm) {
            (KvSource::Own, k_norm) => {
                let dims = [step.batch, self.kv_heads, step.seq, self.head_dim];
                let keys = q_end..q_end + kv;
                let values = if self.k_eq_v { keys.clone() } else { keys.end..keys.end + kv };
                let key_heads = Heads { norm: k_norm.as_ref(), rotation: Some(rotation) };
                let value_heads = Heads { norm: Some(&self.v_norm), rotation: None };
                let k = key_heads.split(&qkv, keys, dims);
                let v = value_heads.split(&qkv, values, dims);
                let (k, v, span) = cache.extend(index, k, v);
                if self.stores {
                    shared.0[index] = Some((k.clone(), v.clone(), span));
                }
                (k, v, span)
            }
            (KvSource::Layer(source), _) => match shared.0[source].clone() {
                Some(kv) => kv,
                // A source lies before the layers that use it and stores what it made.
                None => unreachable!("layer {source} stored no keys"),
            },
        };
        // The reference scales by 1: the q and k norms keep scores in range.
        let scores = Scores { scale: 1.0, soft_cap: None };
        linear(attend(q, k, v, &span, &scores), &self.out)
    }
}

struct Mlp {
    gate_up: Tensor<2>,
    down: Tensor<2>,
    activation: Activation,
}

impl Mlp {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        linear(self.activation.gated(linear(x, &self.gate_up)), &self.down)
    }
}

struct Moe {
    mlp_norm: RmsNorm,
    router: Router,
    pre_norm: RmsNorm,
    experts: Experts,
    implementation: MoeImpl,
    post_norm: RmsNorm,
}

struct Router {
    /// The scale-free norm, `scale` and 1/sqrt(H) as one norm.
    norm: RmsNorm,
    projection: Tensor<2>,
    rule: RouterRule,
    expert_scale: Tensor<1>,
}

impl Router {
    fn load(
        w: &Loader<'_>,
        config: &Config,
        moe: MoeConfig,
        name: &dyn Fn(&str) -> String,
    ) -> Result<Self> {
        let root = (config.hidden as f32).powf(-0.5);
        let scale = w.vector(&name("router.scale"), [config.hidden])? * root;
        Ok(Router {
            norm: RmsNorm::new(scale, config.eps),
            projection: w.weight(&name("router.proj.weight"), [moe.experts, config.hidden])?,
            rule: RouterRule { top_k: moe.top_k, renormalise: true },
            expert_scale: w.vector(&name("router.per_expert_scale"), [moe.experts])?,
        })
    }

    fn forward(&self, x: Tensor<2>) -> Choice {
        let logits = linear(self.norm.forward(x), &self.projection);
        route(logits, self.rule, Some(&self.expert_scale))
    }
}

/// Per-layer embedding block: gates the layer's own input vector with the residual stream.
struct PerLayerBlock {
    gate: Tensor<2>,
    activation: Activation,
    projection: Tensor<2>,
    norm: RmsNorm,
}

impl PerLayerBlock {
    fn forward(&self, x: Tensor<2>, input: Tensor<2>) -> Tensor<2> {
        let gated = self.activation.apply(linear(x, &self.gate)) * input;
        linear(gated, &self.projection)
    }
}
