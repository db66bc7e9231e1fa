//! Config keys that mean the same in every family.

use serde_json::{Value, json};

use crate::{
    config::Section,
    error::Result,
    ops::{
        activation::Activation,
        rope::{Pairing, Rope, RopeConfig, RopeDefaults},
    },
};

/// Sizes every decoder has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Width of the residual stream, H.
    pub(crate) hidden: usize,
    /// Decoder layers.
    pub(crate) layers: usize,
    /// Query heads, N.
    pub(crate) heads: usize,
    /// Key and value heads, a divisor of N.
    pub(crate) kv_heads: usize,
    /// Size of a head, D.
    pub(crate) head_dim: usize,
    /// Vocabulary, V.
    pub(crate) vocab: usize,
    /// Longest context the model was made for.
    pub(crate) context: usize,
    /// Epsilon of RMS norms.
    pub(crate) eps: f32,
    /// Whether the head is the embedding.
    pub(crate) tied: bool,
    /// Applied to gates.
    pub(crate) activation: Activation,
}

impl Sizes {
    /// Reads them; what concerns training alone is dropped.
    pub(crate) fn read(s: &mut Section) -> Result<Self> {
        s.ignore(&[
            "attention_dropout",
            "output_router_logits",
            "router_aux_loss_coef",
            // Written by older versions of transformers; split across devices, not a different model.
            "pretraining_tp",
        ]);
        let hidden = s.size("hidden_size")?;
        let heads = s.size("num_attention_heads")?;
        let kv_heads = s.size_or("num_key_value_heads", heads)?;
        divides(s, "num_key_value_heads", kv_heads, heads)?;
        let head_dim = match s.optional_size("head_dim")? {
            Some(head_dim) => head_dim,
            None => {
                divides(s, "num_attention_heads", heads, hidden)?;
                hidden / heads
            }
        };
        Ok(Sizes {
            hidden,
            layers: s.size("num_hidden_layers")?,
            heads,
            kv_heads,
            head_dim,
            vocab: s.size("vocab_size")?,
            context: s.size("max_position_embeddings")?,
            eps: s.required("rms_norm_eps")?,
            tied: s.optional("tie_word_embeddings")?.unwrap_or(false),
            activation: activation(s, "hidden_act", Activation::Silu)?,
        })
    }
}

/// The activation named by `key`.
pub(crate) fn activation(s: &mut Section, key: &str, default: Activation) -> Result<Activation> {
    let Some(name) = s.optional::<String>(key)? else { return Ok(default) };
    Activation::from_name(&name).ok_or_else(|| s.unsupported(key, &Value::from(name)))
}

/// Refuses a value of `key` that does not divide `whole`.
pub(crate) fn divides(s: &Section, key: &str, value: usize, whole: usize) -> Result<()> {
    match whole.is_multiple_of(value) {
        true => Ok(()),
        false => Err(s.wrong(key, &format!("a divisor of {whole}"), &Value::from(value))),
    }
}

/// Experts and experts per token, by the names `of_all` (the first that is there) and `per_token`.
pub(crate) fn experts(s: &mut Section, of_all: &[&str], per_token: &str) -> Result<(usize, usize)> {
    let experts = s.size_of(of_all)?;
    let top_k = s.size(per_token)?;
    match top_k <= experts && experts <= usize::from(u16::MAX) {
        true => Ok((experts, top_k)),
        false => Err(s.wrong(per_token, &format!("at most {experts}"), &Value::from(top_k))),
    }
}

/// The kind of attention of a layer, in families that alternate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LayerType {
    /// The last few tokens.
    Sliding,
    /// All tokens.
    Full,
}

/// `layer_types`: one kind for each of `layers`, if the config has them.
pub(crate) fn layer_types(s: &mut Section, layers: usize) -> Result<Option<Vec<LayerType>>> {
    let Some(names) = s.optional::<Vec<String>>("layer_types")? else { return Ok(None) };
    if names.len() != layers {
        let expected = format!("{layers} entries, one per layer");
        return Err(s.wrong("layer_types", &expected, &json!(names.len())));
    }
    let kind = |name: &String| match name.as_str() {
        "sliding_attention" => Ok(LayerType::Sliding),
        "full_attention" => Ok(LayerType::Full),
        other => Err(s.unsupported("layer_types", &Value::from(other))),
    };
    names.iter().map(kind).collect::<Result<_>>().map(Some)
}

/// The rotary embedding of all layers, which turns whole heads.
pub(crate) fn rope(s: &mut Section, sizes: &Sizes, theta: f64) -> Result<Rope> {
    let config = partial_rope(s, sizes, theta)?;
    match config.fraction == 1.0 {
        true => Ok(Rope::new(config, Pairing::Halves)),
        // The reference computes the frequencies of a part and turns the whole head by them.
        false => Err(s.unsupported("partial_rotary_factor", &Value::from(config.fraction))),
    }
}

/// The rotary embedding of all layers in families that may turn a part of each head.
pub(crate) fn partial_rope(s: &mut Section, sizes: &Sizes, theta: f64) -> Result<RopeConfig> {
    let defaults = RopeDefaults { theta, head_dim: sizes.head_dim, context: sizes.context };
    RopeConfig::read(s, defaults)
}
