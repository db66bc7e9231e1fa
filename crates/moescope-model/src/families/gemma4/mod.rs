//! Gemma 4, text decoder: sliding and full attention, dense MLP beside routed experts.
//!
//! Checked against `models/gemma4/modeling_gemma4.py` of transformers 5.23.0.

mod config;
mod layer;

use burn::tensor::{Device, Int, Tensor};

use self::{
    config::{Config, KvSource, LayerType, NAME, PerLayerConfig, skipped},
    layer::{Layer, Shared, Step},
};
use super::{Family, Loaded};
use crate::{
    cache::KvCache,
    checkpoint::{Checkpoint, Loader},
    error::Result,
    model::{LoadOptions, LogitsFor, MoeModel},
    observer::{Component, Observer},
    ops::{embedding::embed, linear::linear, logits::soft_cap, norm::RmsNorm, rope::Rope},
    spec::ModelSpec,
};

/// The registry entry.
pub const FAMILY: Family = Family {
    name: NAME,
    architectures: &["Gemma4ForCausalLM", "Gemma4ForConditionalGeneration"],
    describe: |checkpoint| Ok(Config::read(checkpoint)?.spec(checkpoint.architecture()?)),
    load,
};

/// Text weights lie below the first of these that a checkpoint uses.
const PREFIXES: &[&str] = &["model.language_model.", "model."];

struct Gemma4 {
    spec: ModelSpec,
    device: Device,
    /// `[V, H]`, embedding and head.
    embedding: Tensor<2>,
    embedding_scale: f32,
    per_layer: Option<PerLayer>,
    sliding_rope: Rope,
    full_rope: Rope,
    layers: Vec<Layer>,
    norm: RmsNorm,
    soft_cap: Option<f32>,
}

/// Per-layer embeddings: a second table whose rows hold a vector for every layer.
struct PerLayer {
    config: PerLayerConfig,
    /// `[V', N P]`, N layers, P the width.
    table: Tensor<2>,
    /// `[N P, H]`.
    projection: Tensor<2>,
    norm: RmsNorm,
}

fn load(checkpoint: &Checkpoint, options: &LoadOptions<'_>) -> Result<Loaded> {
    let config = Config::read(checkpoint)?;
    let w = Loader::new(checkpoint, PREFIXES, options.device, options.dtype, options.progress);
    let h = config.hidden;
    let layers = config
        .layers
        .iter()
        .enumerate()
        .map(|(i, layer)| Layer::load(&w, &config, i, layer, options.moe_impl))
        .collect::<Result<_>>()?;
    let head_dim =
        |kind| config.layers.iter().find(|l| l.kind == kind).map_or(2, |layer| layer.head_dim);
    let model = Gemma4 {
        spec: config.spec(checkpoint.architecture()?),
        device: options.device.clone(),
        embedding: w.weight("embed_tokens.weight", [config.vocab, h])?,
        embedding_scale: (h as f32).sqrt(),
        per_layer: config
            .per_layer
            .map(|ple| PerLayer::load(&w, ple, config.layers.len(), h, config.eps))
            .transpose()?,
        sliding_rope: config.sliding_rope.build(head_dim(LayerType::Sliding)),
        full_rope: config.full_rope.build(head_dim(LayerType::Full)),
        layers,
        norm: RmsNorm::new(w.vector("norm.weight", [h])?, config.eps),
        soft_cap: config.soft_cap,
    };
    let summary = w.finish(|name| skipped(name, &config.layers))?;
    Ok((Box::new(model), summary))
}

impl MoeModel for Gemma4 {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn forward(
        &self,
        ids: Tensor<2, Int>,
        cache: &mut KvCache,
        observer: &mut dyn Observer,
        logits: LogitsFor,
    ) -> Result<Tensor<2>> {
        let [batch, seq] = ids.dims();
        cache.check_room(seq)?;
        let ids = ids.reshape([batch * seq]);
        let mut x = embed(&self.embedding, ids.clone(), self.embedding_scale);
        let per_layer = self.per_layer.as_ref().map(|ple| ple.inputs(ids, &x));
        observer.embedded(&x);
        observer.component_done(None, Component::Embedding);

        let start = cache.len();
        let step = Step {
            batch,
            seq,
            sliding: self.sliding_rope.rotation(start, seq, &self.device),
            full: self.full_rope.rotation(start, seq, &self.device),
        };
        let mut shared = Shared::new(self.layers.len());
        for (i, layer) in self.layers.iter().enumerate() {
            let input = per_layer.as_ref().map(|inputs| inputs.of_layer(i));
            x = layer.forward(x, input, &step, cache, &mut shared, observer);
            observer.layer_done(i as u16, &x);
        }
        cache.advance(seq);

        let x = self.norm.forward(x);
        observer.step_done(&x);
        let x = match logits {
            LogitsFor::All => x,
            LogitsFor::Last if seq == 1 => x,
            LogitsFor::Last => {
                let h = self.spec.hidden;
                let x = x.reshape([batch, seq, h]).slice([0..batch, seq - 1..seq, 0..h]);
                x.reshape([batch, h])
            }
        };
        let logits = self.head(x);
        observer.component_done(None, Component::Head);
        Ok(logits)
    }

    fn head(&self, normed: Tensor<2>) -> Tensor<2> {
        let logits = linear(normed, &self.embedding);
        match self.soft_cap {
            Some(cap) => soft_cap(logits, cap),
            None => logits,
        }
    }
}

impl PerLayer {
    fn load(w: &Loader<'_>, config: PerLayerConfig, n: usize, h: usize, eps: f32) -> Result<Self> {
        let packed = n * config.width;
        Ok(PerLayer {
            config,
            table: w.weight("embed_tokens_per_layer.weight", [config.vocab, packed])?,
            projection: w.weight("per_layer_model_projection.weight", [packed, h])?,
            norm: RmsNorm::new(w.vector("per_layer_projection_norm.weight", [config.width])?, eps),
        })
    }

    /// What every layer gets beside the residual stream: the token's own vector and a projection of its
    /// embedding, averaged.
    fn inputs(&self, ids: Tensor<1, Int>, embedded: &Tensor<2>) -> PerLayerInputs {
        let [t, h] = embedded.dims();
        let width = self.config.width;
        let own = embed(&self.table, ids, (width as f32).sqrt());
        let [_, packed] = own.dims();
        let projected = linear(embedded.clone(), &self.projection) * (h as f32).powf(-0.5);
        let rows = t * packed / width;
        let projected = self.norm.forward(projected.reshape([rows, width])).reshape([t, packed]);
        PerLayerInputs { all: (projected + own) * std::f32::consts::FRAC_1_SQRT_2, width }
    }
}

/// `[T, N P]`.
struct PerLayerInputs {
    all: Tensor<2>,
    width: usize,
}

impl PerLayerInputs {
    /// `[T, P]`.
    fn of_layer(&self, layer: usize) -> Tensor<2> {
        let [t, _] = self.all.dims();
        self.all.clone().slice([0..t, layer * self.width..(layer + 1) * self.width])
    }
}

/// Layers whose keys and values later layers use.
fn stores(config: &Config, layer: usize) -> bool {
    config.layers.iter().any(|l| l.source == KvSource::Layer(layer))
}
