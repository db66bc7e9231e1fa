//! Gemma 4, text decoder: sliding and full attention, dense MLP beside routed experts.
//!
//! Checked against `models/gemma4/modeling_gemma4.py` of transformers 5.23.0.

mod config;
mod layer;

use burn::tensor::{Int, Tensor};

use self::{
    config::{Config, KvSource, NAME, PerLayerConfig, skipped},
    layer::{Carried, Layer},
};
use super::{Family, Loaded};
use crate::{
    blocks::{
        decoder::{Decoder, Layers, Pass},
        tensors::Weights,
    },
    checkpoint::{Checkpoint, Loader},
    error::Result,
    model::LoadOptions,
    ops::{
        embedding::embed,
        linear::linear,
        norm::RmsNorm,
        pieces::Pieces,
        rope::{Pairing, Rope},
    },
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

struct Gemma4Layers {
    per_layer: Option<PerLayer>,
    layers: Vec<Layer>,
}

/// Per-layer embeddings: a second table whose rows hold a vector for every layer.
struct PerLayer {
    config: PerLayerConfig,
    /// `[V', N P]`, N layers, P the width.
    table: Pieces<2>,
    /// `[N P, H]`.
    projection: Pieces<2>,
    norm: RmsNorm,
}

fn load(checkpoint: &Checkpoint, options: &LoadOptions<'_>) -> Result<Loaded> {
    let config = Config::read(checkpoint)?;
    let loader = Loader::new(checkpoint, PREFIXES, options.device, options.dtype, options.progress);
    let w = Weights::new(&loader);
    let layers = config
        .layers
        .iter()
        .enumerate()
        .map(|(i, layer)| Layer::load(&w.layer(i), &config, i, layer, options.moe_impl))
        .collect::<Result<_>>()?;
    let n = config.layers.len();
    let per_layer = config.per_layer;
    let model = Decoder {
        spec: config.spec(checkpoint.architecture()?),
        device: options.device.clone(),
        ends: config.ends().load(&w)?,
        // By `LayerType`.
        ropes: vec![
            Rope::new(config.sliding_rope.clone(), Pairing::Halves),
            Rope::new(config.full_rope.clone(), Pairing::Halves),
        ],
        layers: Gemma4Layers {
            per_layer: per_layer
                .map(|ple| PerLayer::load(&w, ple, n, config.hidden, config.eps))
                .transpose()?,
            layers,
        },
    };
    let summary = loader.finish(|name| skipped(name, &config.layers))?;
    Ok((Box::new(model), summary))
}

impl Layers for Gemma4Layers {
    type Carried = Carried;

    fn begin(&self, ids: Tensor<1, Int>, embedded: &Tensor<2>) -> Carried {
        Carried {
            inputs: self.per_layer.as_ref().map(|ple| ple.inputs(ids, embedded)),
            kv: vec![None; self.layers.len()],
        }
    }

    fn count(&self) -> usize {
        self.layers.len()
    }

    fn forward(
        &self,
        index: usize,
        x: Tensor<2>,
        carried: &mut Carried,
        pass: &mut Pass<'_>,
    ) -> Tensor<2> {
        self.layers[index].forward(x, carried, pass)
    }
}

impl PerLayer {
    fn load(w: &Weights<'_>, config: PerLayerConfig, n: usize, h: usize, eps: f32) -> Result<Self> {
        let packed = n * config.width;
        Ok(PerLayer {
            config,
            table: w.weight("embed_tokens_per_layer.weight", [config.vocab, packed])?,
            projection: w.weight("per_layer_model_projection.weight", [packed, h])?,
            norm: w.norm("per_layer_projection_norm.weight", config.width, eps, 0.0)?,
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
