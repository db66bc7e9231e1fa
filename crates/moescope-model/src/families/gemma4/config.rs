//! The text config of Gemma 4, in both spellings, and what follows from it.

use serde_json::{Value, json};

use crate::{
    blocks::{
        config::{LayerType, activation, divides, eps, experts, layer_types},
        decoder::EndsShape,
        mlp::MlpShape,
        tensors::Tensors,
    },
    checkpoint::Checkpoint,
    config::Section,
    error::Result,
    ops::{
        activation::Activation,
        rope::{RopeConfig, RopeDefaults, RopeKind},
    },
    spec::{KvSpec, ModelSpec, MoeLayerSpec, Part, TensorSpec},
};

/// Name in messages.
pub(super) const NAME: &str = "Gemma 4";

/// How a layer gets its keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KvSource {
    /// Computes them.
    Own,
    /// Uses those of this earlier layer.
    Layer(usize),
}

/// One decoder layer.
#[derive(Clone, Debug)]
pub(super) struct LayerConfig {
    pub(super) kind: LayerType,
    pub(super) head_dim: usize,
    pub(super) kv_heads: usize,
    pub(super) source: KvSource,
    /// Values are the (differently normalised) keys.
    pub(super) k_eq_v: bool,
    /// Width of the dense MLP.
    pub(super) mlp: usize,
}

/// Routed experts.
#[derive(Clone, Copy, Debug)]
pub(super) struct MoeConfig {
    pub(super) experts: usize,
    pub(super) top_k: usize,
    pub(super) inner: usize,
}

impl MoeConfig {
    /// The layer as the rest of the crate sees it.
    pub(super) fn spec(&self, layer: usize) -> MoeLayerSpec {
        MoeLayerSpec {
            layer: layer as u16,
            experts: self.experts as u16,
            top_k: self.top_k as u16,
            shared_experts: 0,
        }
    }
}

/// Per-layer embeddings.
#[derive(Clone, Copy, Debug)]
pub(super) struct PerLayerConfig {
    pub(super) width: usize,
    pub(super) vocab: usize,
}

/// A Gemma 4 text decoder.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) hidden: usize,
    pub(super) vocab: usize,
    pub(super) context: usize,
    pub(super) heads: usize,
    pub(super) eps: f32,
    pub(super) window: usize,
    pub(super) soft_cap: Option<f32>,
    pub(super) activation: Activation,
    pub(super) sliding_rope: RopeConfig,
    pub(super) full_rope: RopeConfig,
    pub(super) moe: Option<MoeConfig>,
    pub(super) per_layer: Option<PerLayerConfig>,
    pub(super) layers: Vec<LayerConfig>,
}

impl Config {
    /// Reads the config of a checkpoint: the text part, where it is multimodal.
    pub(super) fn read(checkpoint: &Checkpoint) -> Result<Self> {
        let mut top = Section::new(checkpoint.config_path(), NAME, checkpoint.config().clone());
        match top.section("text_config")? {
            None => Self::read_text(top, checkpoint),
            Some(text) => {
                // The other towers are skipped by name; their ids and sections say nothing about text.
                top.ignore(&[
                    "vision_config",
                    "audio_config",
                    "image_token_id",
                    "video_token_id",
                    "audio_token_id",
                    "boi_token_id",
                    "eoi_token_id",
                    "eoi_token_index",
                    "boa_token_id",
                    "eoa_token_id",
                    "eoa_token_index",
                    "vision_soft_tokens_per_image",
                ]);
                top.only("tie_word_embeddings", &[json!(true)])?;
                top.finish()?;
                Self::read_text(text, checkpoint)
            }
        }
    }

    fn read_text(mut s: Section, checkpoint: &Checkpoint) -> Result<Self> {
        s.only("attention_bias", &[json!(false)])?;
        s.ignore(&["attention_dropout", "_sliding_window_pattern"]);
        s.only("tie_word_embeddings", &[json!(true)])?;
        // "vision" concerns image tokens only; text stays causal.
        s.only("use_bidirectional_attention", &[json!(false), json!("vision")])?;
        let hidden = s.size("hidden_size")?;
        let n = s.layers()?;
        let heads = s.size("num_attention_heads")?;
        let kv_heads = s.size("num_key_value_heads")?;
        let head_dim = s.size("head_dim")?;
        let intermediate = s.size("intermediate_size")?;
        let k_eq_v = s.optional::<bool>("attention_k_eq_v")?.unwrap_or(false);
        let shared = s.optional::<usize>("num_kv_shared_layers")?.unwrap_or(0);
        let double = s.optional::<bool>("use_double_wide_mlp")?.unwrap_or(false);
        let kinds = kinds(&mut s, n, checkpoint.whole_layers(n))?;
        let overrides = Overrides::read(&mut s, &kinds, head_dim, kv_heads, k_eq_v)?;
        let sources = kv_sources(&s, &kinds, shared)?;
        let layers: Vec<LayerConfig> = (0..n)
            .map(|i| LayerConfig {
                kind: kinds[i],
                head_dim: overrides.head_dim[i],
                kv_heads: overrides.kv_heads[i],
                source: sources[i],
                k_eq_v: k_eq_v && kinds[i] == LayerType::Full,
                mlp: match double && sources[i] != KvSource::Own {
                    true => 2 * intermediate,
                    false => intermediate,
                },
            })
            .collect();
        let context = s.size("max_position_embeddings")?;
        let [sliding_rope, full_rope] = ropes(&mut s, &layers, context)?;
        let config = Config {
            hidden,
            vocab: s.size("vocab_size")?,
            context,
            heads,
            eps: eps(&mut s, None)?,
            window: s.size("sliding_window")?,
            soft_cap: s.optional_positive("final_logit_softcapping")?,
            activation: activation(&mut s, "hidden_activation", Activation::GeluTanh)?,
            sliding_rope,
            full_rope,
            moe: moe(&mut s)?,
            per_layer: per_layer(&mut s)?,
            layers,
        };
        for layer in &config.layers {
            divides(&s, "num_key_value_heads", layer.kv_heads, heads)?;
        }
        s.finish()?;
        Ok(config)
    }

    /// The model as the rest of the crate sees it.
    pub(super) fn spec(&self, architecture: &str) -> ModelSpec {
        let moe_layer = |(layer, moe): (usize, MoeConfig)| moe.spec(layer);
        ModelSpec {
            architecture: architecture.to_owned(),
            family: NAME,
            layers: self.layers.len(),
            hidden: self.hidden,
            vocab: self.vocab,
            context: self.context,
            moe: self
                .moe
                .into_iter()
                .flat_map(|moe| (0..self.layers.len()).map(move |l| (l, moe)))
                .map(moe_layer)
                .collect(),
            kv: self
                .layers
                .iter()
                .map(|layer| KvSpec {
                    heads: if layer.source == KvSource::Own { layer.kv_heads } else { 0 },
                    head_dim: layer.head_dim,
                    value_dim: layer.head_dim,
                    window: (layer.kind == LayerType::Sliding).then_some(self.window),
                    query_heads: self.heads,
                    attended_dim: layer.head_dim,
                    source: match layer.source {
                        KvSource::Own => None,
                        KvSource::Layer(source) => Some(source as u16),
                    },
                    latent: None,
                })
                .collect(),
            tensors: self.tensors(),
            active_embedding: true,
        }
    }

    /// Embedding, final norm and head.
    pub(super) fn ends(&self) -> EndsShape {
        EndsShape {
            vocab: self.vocab,
            hidden: self.hidden,
            eps: self.eps,
            norm_offset: 0.0,
            tied: true,
            embedding_scale: (self.hidden as f32).sqrt(),
            soft_cap: self.soft_cap,
        }
    }

    /// Every tensor of the text model, below the checkpoint's prefix.
    fn tensors(&self) -> Vec<TensorSpec> {
        let mut tensors = Tensors::default();
        self.ends().declare(&mut tensors);
        let h = self.hidden;
        if let Some(ple) = self.per_layer {
            let packed = ple.width * self.layers.len();
            let part = Part::PerLayerEmbedding;
            tensors.table("embed_tokens_per_layer.weight", &[ple.vocab, packed], part);
            tensors.add("per_layer_model_projection.weight", &[packed, h], part);
            tensors.add("per_layer_projection_norm.weight", &[ple.width], Part::Norms);
        }
        for (i, layer) in self.layers.iter().enumerate() {
            tensors.layer(i, |tensors| self.layer_tensors(layer, tensors));
        }
        tensors.into_list()
    }

    fn layer_tensors(&self, layer: &LayerConfig, tensors: &mut Tensors) {
        let h = self.hidden;
        let mlp = MlpShape { hidden: h, inner: layer.mlp, activation: self.activation };
        tensors.within("mlp", |tensors| mlp.declare(tensors, Part::Mlp));
        let mut add = |name: &str, shape: &[usize], part| tensors.add(name, shape, part);
        for norm in ["input", "post_attention", "pre_feedforward", "post_feedforward"] {
            add(&format!("{norm}_layernorm.weight"), &[h], Part::Norms);
        }
        add("layer_scalar", &[1], Part::Norms);
        let (q, kv) = (self.heads * layer.head_dim, layer.kv_heads * layer.head_dim);
        add("self_attn.q_proj.weight", &[q, h], Part::Attention);
        add("self_attn.o_proj.weight", &[h, q], Part::Attention);
        add("self_attn.q_norm.weight", &[layer.head_dim], Part::Norms);
        if layer.source == KvSource::Own {
            add("self_attn.k_norm.weight", &[layer.head_dim], Part::Norms);
            add("self_attn.k_proj.weight", &[kv, h], Part::Attention);
            if !layer.k_eq_v {
                add("self_attn.v_proj.weight", &[kv, h], Part::Attention);
            }
        }
        if let Some(moe) = self.moe {
            let (e, inner) = (moe.experts, moe.inner);
            add("router.proj.weight", &[e, h], Part::Router);
            add("router.scale", &[h], Part::Router);
            add("router.per_expert_scale", &[e], Part::Router);
            add("experts.gate_up_proj", &[e, 2 * inner, h], Part::Experts);
            add("experts.down_proj", &[e, h, inner], Part::Experts);
            add("post_feedforward_layernorm_1.weight", &[h], Part::Norms);
            add("post_feedforward_layernorm_2.weight", &[h], Part::Norms);
            add("pre_feedforward_layernorm_2.weight", &[h], Part::Norms);
        }
        if let Some(ple) = self.per_layer {
            let part = Part::PerLayerEmbedding;
            add("per_layer_input_gate.weight", &[ple.width, h], part);
            add("per_layer_projection.weight", &[h, ple.width], part);
            add("post_per_layer_input_norm.weight", &[h], Part::Norms);
        }
    }
}

/// The kinds of the first `n` of `whole` layers.
fn kinds(s: &mut Section, n: usize, whole: usize) -> Result<Vec<LayerType>> {
    // Five sliding layers, then a full one, where the config does not say.
    let usual = |i: usize| match (i + 1).is_multiple_of(6) {
        true => LayerType::Full,
        false => LayerType::Sliding,
    };
    let mut kinds = layer_types(s, n)?.unwrap_or_else(|| (0..n).map(usual).collect());
    // The reference forces the last layer to full attention, whatever the config says.
    if n == whole
        && let Some(last) = kinds.last_mut()
    {
        *last = LayerType::Full;
    }
    Ok(kinds)
}

/// Head size and KV heads per layer: `per_layer_config` of newer configs, or the two `global_` keys of
/// published ones.
struct Overrides {
    head_dim: Vec<usize>,
    kv_heads: Vec<usize>,
}

impl Overrides {
    fn read(
        s: &mut Section,
        kinds: &[LayerType],
        head_dim: usize,
        kv_heads: usize,
        k_eq_v: bool,
    ) -> Result<Self> {
        let mut all = Overrides {
            head_dim: vec![head_dim; kinds.len()],
            kv_heads: vec![kv_heads; kinds.len()],
        };
        let global_head_dim = s.optional_size("global_head_dim")?;
        let global_kv_heads = s.optional_size("num_global_key_value_heads")?;
        if let Some(mut layers) = s.section("per_layer_config")? {
            for key in layers.keys() {
                let index = key.parse::<usize>().ok().filter(|i| *i < kinds.len());
                let index = index.ok_or_else(|| {
                    layers.wrong(&key, "the index of a layer", &Value::from(key.as_str()))
                })?;
                let Some(mut layer) = layers.section(&key)? else { continue };
                if let Some(dim) = layer.optional_size("head_dim")? {
                    all.head_dim[index] = dim;
                }
                if let Some(heads) = layer.optional_size("num_key_value_heads")? {
                    all.kv_heads[index] = heads;
                }
                layer.finish()?;
            }
            return Ok(all);
        }
        for (i, _) in kinds.iter().enumerate().filter(|(_, kind)| **kind == LayerType::Full) {
            // 512 is the reference's default where the key is absent.
            all.head_dim[i] = global_head_dim.unwrap_or(512);
            if k_eq_v && let Some(heads) = global_kv_heads {
                all.kv_heads[i] = heads;
            }
        }
        Ok(all)
    }
}

/// The last `shared` layers use the keys and values of the last layer before them of their kind.
fn kv_sources(s: &Section, kinds: &[LayerType], shared: usize) -> Result<Vec<KvSource>> {
    let first = kinds.len().checked_sub(shared).filter(|first| shared == 0 || *first > 0);
    let first = first.ok_or_else(|| {
        let expected = format!("fewer than the {} layers", kinds.len());
        s.wrong("num_kv_shared_layers", &expected, &Value::from(shared))
    })?;
    let source = |(i, kind): (usize, &LayerType)| {
        if i < first {
            return Ok(KvSource::Own);
        }
        kinds[..first].iter().rposition(|k| k == kind).map(KvSource::Layer).ok_or_else(|| {
            let expected = "shared layers of kinds that come before them";
            s.wrong("num_kv_shared_layers", expected, &Value::from(shared))
        })
    };
    kinds.iter().enumerate().map(source).collect()
}

fn ropes(s: &mut Section, layers: &[LayerConfig], context: usize) -> Result<[RopeConfig; 2]> {
    let rope = |of: LayerType, theta: f64, fraction: f64| {
        // A kind no layer is of turns nothing.
        let head_dim = layers.iter().find(|l| l.kind == of).map_or(2, |layer| layer.head_dim);
        let defaults = RopeDefaults { theta, fraction, head_dim, context };
        let kind = RopeKind::Proportional { factor: 1.0 };
        RopeConfig { kind, ..RopeConfig::plain(defaults) }
    };
    for kind in [LayerType::Sliding, LayerType::Full] {
        let mut sizes = layers.iter().filter(|l| l.kind == kind).map(|l| l.head_dim);
        let first = sizes.next();
        if let Some(other) = sizes.find(|size| Some(*size) != first) {
            // One embedding serves all layers of a kind.
            return Err(s.unsupported("per_layer_config", &json!({ "head_dim": other })));
        }
    }
    let sliding = rope(LayerType::Sliding, 10_000.0, 1.0);
    let full = rope(LayerType::Full, 1_000_000.0, 0.25);
    let Some(mut both) = s.section("rope_parameters")? else {
        return Ok([sliding.checked(s)?, full.checked(s)?]);
    };
    let mut read = |key: &str, default: RopeConfig| -> Result<RopeConfig> {
        let Some(mut rope) = both.section(key)? else { return default.checked(&both) };
        let kind = rope.required::<String>("rope_type")?;
        let theta = rope.required::<f64>("rope_theta")?;
        let fraction = rope.optional::<f64>("partial_rotary_factor")?;
        rope.only("factor", &[json!(1.0), json!(1)])?;
        let fraction = match kind.as_str() {
            "default" => match fraction {
                None | Some(1.0) => 1.0,
                Some(f) => return Err(rope.unsupported("partial_rotary_factor", &Value::from(f))),
            },
            "proportional" => fraction.unwrap_or(1.0),
            other => return Err(rope.unsupported("rope_type", &Value::from(other))),
        };
        let config = RopeConfig { theta, fraction, ..default }.checked(&rope)?;
        rope.finish()?;
        Ok(config)
    };
    let ropes = [read("sliding_attention", sliding)?, read("full_attention", full)?];
    both.finish()?;
    Ok(ropes)
}

/// Width of an expert, as configs spell it now and as the first published ones did.
const INNER: &[&str] = &["moe_intermediate_size", "expert_intermediate_size"];

fn moe(s: &mut Section) -> Result<Option<MoeConfig>> {
    let enabled = s.optional::<bool>("enable_moe_block")?.unwrap_or(false);
    if !enabled {
        s.ignore(&["num_experts", "top_k_experts"]);
        s.ignore(INNER);
        return Ok(None);
    }
    let (experts, top_k) = experts(s, &["num_experts"], "top_k_experts")?;
    Ok(Some(MoeConfig { experts, top_k, inner: s.size_of(INNER)? }))
}

fn per_layer(s: &mut Section) -> Result<Option<PerLayerConfig>> {
    // The reference's default width is 256: absent and 0 are different models.
    let width = s.optional::<usize>("hidden_size_per_layer_input")?.unwrap_or(256);
    if width == 0 {
        s.ignore(&["vocab_size_per_layer_input"]);
        return Ok(None);
    }
    Ok(Some(PerLayerConfig { width, vocab: s.size("vocab_size_per_layer_input")? }))
}

/// Weights that come with a checkpoint but belong to no part of the text model: other towers, and key
/// and value projections of layers that use those of another (published E2B and E4B checkpoints).
pub(super) fn skipped(name: &str, layers: &[LayerConfig]) -> bool {
    const TOWERS: &[&str] = &[
        "model.vision_tower.",
        "model.audio_tower.",
        "model.embed_vision.",
        "model.embed_audio.",
        "model.multi_modal_projector.",
    ];
    const UNUSED_IN_SHARED: &[&str] =
        &["self_attn.k_proj.weight", "self_attn.v_proj.weight", "self_attn.k_norm.weight"];
    let in_shared_layer = || {
        let (index, tensor) = name.split_once("layers.")?.1.split_once('.')?;
        let layer = layers.get(index.parse::<usize>().ok()?)?;
        Some(layer.source != KvSource::Own && UNUSED_IN_SHARED.contains(&tensor))
    };
    TOWERS.iter().any(|tower| name.starts_with(tower)) || in_shared_layer().unwrap_or(false)
}
