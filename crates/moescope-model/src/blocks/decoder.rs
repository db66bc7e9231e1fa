//! What every decoder does around its layers: embedding, positions, cache, final norm, head.

use burn::tensor::{Device, Int, Tensor};

use super::{
    config::Sizes,
    tensors::{Tensors, Weights},
};
use crate::{
    cache::KvCache,
    checkpoint::{Checkpoint, Loader},
    error::{ModelError, Result},
    families::Loaded,
    model::{LoadOptions, LogitsFor, MoeModel},
    observer::{Component, Observer},
    ops::{
        embedding::embed,
        experts::MoeImpl,
        linear::linear,
        logits::soft_cap,
        norm::RmsNorm,
        pieces::Pieces,
        rope::{Rope, Rotation},
    },
    spec::{KvSpec, ModelSpec, MoeLayerSpec, Part},
};

/// What the layers of one forward pass work with beside the residual stream.
pub(crate) struct Pass<'a> {
    /// Sequences, B.
    pub(crate) batch: usize,
    /// New tokens per sequence, S.
    pub(crate) seq: usize,
    /// The positions of the new tokens, one for each of the decoder's ropes.
    pub(crate) rotations: Vec<Rotation>,
    /// Keys and values of the tokens before.
    pub(crate) cache: &'a mut KvCache,
    /// Who watches.
    pub(crate) observer: &'a mut dyn Observer,
    /// What was wrong with the experts the observer forced, the first of it: layers return tensors only.
    pub(crate) refused: Option<ModelError>,
}

impl Pass<'_> {
    /// Experts that the observer forces on this pass in `layer`, `[T, K]`.
    pub(crate) fn forced_experts(&mut self, layer: &MoeLayerSpec) -> Option<Tensor<2, Int>> {
        let tokens = self.batch * self.seq;
        let forced = self.observer.forced_experts(layer.layer, tokens)?;
        match forced.take(layer, tokens) {
            Ok(ids) => Some(ids),
            Err(error) => {
                self.refused.get_or_insert(error);
                None
            }
        }
    }
}

/// The layers of a decoder.
pub(crate) trait Layers: Send + Sync {
    /// What layers of one pass hand on beside the residual stream.
    type Carried;

    /// Starts a pass over the tokens `ids [T]`, embedded as `[T, H]`.
    fn begin(&self, ids: Tensor<1, Int>, embedded: &Tensor<2>) -> Self::Carried;

    /// How many there are.
    fn count(&self) -> usize;

    /// Runs one of them: `[T, H] -> [T, H]`.
    fn forward(
        &self,
        index: usize,
        x: Tensor<2>,
        carried: &mut Self::Carried,
        pass: &mut Pass<'_>,
    ) -> Tensor<2>;
}

/// A layer that needs nothing from other layers but the residual stream.
pub(crate) trait Layer: Send + Sync {
    /// Runs it: `[T, H] -> [T, H]`.
    fn forward(&self, x: Tensor<2>, pass: &mut Pass<'_>) -> Tensor<2>;
}

impl<L: Layer> Layers for Vec<L> {
    type Carried = ();

    fn begin(&self, _ids: Tensor<1, Int>, _embedded: &Tensor<2>) {}

    fn count(&self) -> usize {
        self.len()
    }

    fn forward(&self, index: usize, x: Tensor<2>, (): &mut (), pass: &mut Pass<'_>) -> Tensor<2> {
        self[index].forward(x, pass)
    }
}

/// What a config says about a layer that needs nothing from other layers.
pub(crate) trait LayerShape {
    /// The loaded form.
    type Loaded: Layer;

    /// Keys and values it keeps.
    fn kv(&self) -> KvSpec;

    /// Its experts, if it is the layer `index` and has any.
    fn moe(&self, index: usize) -> Option<MoeLayerSpec>;

    /// Adds its tensors.
    fn declare(&self, tensors: &mut Tensors);

    /// Loads it as the layer `index`; fails as [`crate::checkpoint::Loader::weight`].
    fn load(&self, w: &Weights<'_>, index: usize, moe_impl: MoeImpl) -> Result<Self::Loaded>;
}

/// A decoder as its config describes it.
pub(crate) struct DecoderShape<L> {
    /// Family name.
    pub(crate) family: &'static str,
    /// Embedding, final norm and head.
    pub(crate) ends: EndsShape,
    /// Rotary embeddings, which layers refer to by index.
    pub(crate) ropes: Vec<Rope>,
    /// Its layers.
    pub(crate) layers: Vec<L>,
    /// See [`ModelSpec::active_embedding`].
    pub(crate) active_embedding: bool,
}

impl<L: LayerShape> DecoderShape<L>
where
    L::Loaded: 'static,
{
    /// The model as the rest of the crate sees it.
    ///
    /// # Errors
    ///
    /// The config names no architecture.
    pub(crate) fn spec(&self, checkpoint: &Checkpoint) -> Result<ModelSpec> {
        let mut tensors = Tensors::default();
        self.ends.declare(&mut tensors);
        for (index, layer) in self.layers.iter().enumerate() {
            tensors.layer(index, |tensors| layer.declare(tensors));
        }
        Ok(ModelSpec {
            architecture: checkpoint.architecture()?.to_owned(),
            family: self.family,
            layers: self.layers.len(),
            hidden: self.ends.hidden,
            vocab: self.ends.vocab,
            context: self.ropes.iter().map(Rope::context).max().unwrap_or(0),
            moe: self.layers.iter().enumerate().filter_map(|(i, layer)| layer.moe(i)).collect(),
            kv: self.layers.iter().map(LayerShape::kv).collect(),
            tensors: tensors.into_list(),
            active_embedding: self.active_embedding,
        })
    }

    /// Loads the model from below the first of `prefixes` in use; `skip` knows the full names of
    /// tensors that belong to no part of it.
    ///
    /// # Errors
    ///
    /// The weights are not exactly those the config asks for.
    pub(crate) fn load(
        self,
        checkpoint: &Checkpoint,
        options: &LoadOptions<'_>,
        prefixes: &[&'static str],
        skip: impl Fn(&str) -> bool,
    ) -> Result<Loaded> {
        let loader =
            Loader::new(checkpoint, prefixes, options.device, options.dtype, options.progress);
        let w = Weights::new(&loader);
        let layer = |(i, layer): (usize, &L)| layer.load(&w.layer(i), i, options.moe_impl);
        let model = Decoder {
            spec: self.spec(checkpoint)?,
            device: options.device.clone(),
            ends: self.ends.load(&w)?,
            layers: self.layers.iter().enumerate().map(layer).collect::<Result<Vec<_>>>()?,
            ropes: self.ropes,
        };
        Ok((Box::new(model), loader.finish(skip)?))
    }
}

const EMBEDDING: &str = "embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Embedding, final norm and head of a decoder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndsShape {
    /// Vocabulary, V.
    pub(crate) vocab: usize,
    /// Width of the residual stream, H.
    pub(crate) hidden: usize,
    /// Epsilon of the final norm.
    pub(crate) eps: f32,
    /// Added to the weight of the final norm.
    pub(crate) norm_offset: f32,
    /// Whether the head is the embedding.
    pub(crate) tied: bool,
    /// Multiplies the embedding of a token.
    pub(crate) embedding_scale: f32,
    /// `cap * tanh(logit / cap)`, where the family has it.
    pub(crate) soft_cap: Option<f32>,
}

/// Embedding, final norm and head.
pub(crate) struct Ends {
    /// `[V, H]`.
    embedding: Pieces<2>,
    embedding_scale: f32,
    norm: RmsNorm,
    /// `[V, H]`; `None` is the embedding.
    head: Option<Pieces<2>>,
    soft_cap: Option<f32>,
}

impl EndsShape {
    /// Embedding and logits as they are.
    pub(crate) fn plain(sizes: &Sizes) -> Self {
        EndsShape {
            vocab: sizes.vocab,
            hidden: sizes.hidden,
            eps: sizes.eps,
            norm_offset: 0.0,
            tied: sizes.tied,
            embedding_scale: 1.0,
            soft_cap: None,
        }
    }

    /// Adds their tensors.
    pub(crate) fn declare(&self, tensors: &mut Tensors) {
        tensors.table(EMBEDDING, &[self.vocab, self.hidden], Part::Embedding);
        tensors.add("norm.weight", &[self.hidden], Part::Norms);
        if !self.tied {
            tensors.add(HEAD, &[self.vocab, self.hidden], Part::Head);
        }
    }

    /// Loads them.
    ///
    /// # Errors
    ///
    /// As [`crate::checkpoint::Loader::weight`].
    pub(crate) fn load(&self, w: &Weights<'_>) -> Result<Ends> {
        if self.tied {
            w.tied_head(HEAD, EMBEDDING)?;
        }
        Ok(Ends {
            embedding: w.weight(EMBEDDING, [self.vocab, self.hidden])?,
            embedding_scale: self.embedding_scale,
            norm: w.norm("norm.weight", self.hidden, self.eps, self.norm_offset)?,
            head: match self.tied {
                true => None,
                false => Some(w.head(HEAD, [self.vocab, self.hidden])?),
            },
            soft_cap: self.soft_cap,
        })
    }
}

/// A decoder with its weights.
pub(crate) struct Decoder<L> {
    pub(crate) spec: ModelSpec,
    pub(crate) device: Device,
    pub(crate) ends: Ends,
    /// Rotary embeddings, which layers refer to by index.
    pub(crate) ropes: Vec<Rope>,
    pub(crate) layers: L,
}

impl<L: Layers> MoeModel for Decoder<L> {
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
        let mut x = embed(&self.ends.embedding, ids.clone(), self.ends.embedding_scale);
        let mut carried = self.layers.begin(ids, &x);
        observer.embedded(&x);
        observer.component_done(None, Component::Embedding);

        let start = cache.len();
        let rotations =
            self.ropes.iter().map(|rope| rope.rotation(start, seq, &self.device)).collect();
        let mut pass = Pass { batch, seq, rotations, cache, observer, refused: None };
        for index in 0..self.layers.count() {
            x = self.layers.forward(index, x, &mut carried, &mut pass);
            pass.observer.layer_done(index as u16, &x);
        }
        if let Some(refused) = pass.refused {
            return Err(refused);
        }
        pass.cache.advance(seq);

        let x = self.ends.norm.forward(x);
        pass.observer.step_done(&x);
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
        pass.observer.component_done(None, Component::Head);
        Ok(logits)
    }

    fn head(&self, normed: Tensor<2>) -> Tensor<2> {
        let logits = linear(normed, self.ends.head.as_ref().unwrap_or(&self.ends.embedding));
        match self.ends.soft_cap {
            Some(cap) => soft_cap(logits, cap),
            None => logits,
        }
    }
}
