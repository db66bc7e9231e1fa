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

/// What a family means by a key its config does not have; `None` is an error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SizeDefaults {
    /// `num_attention_heads`.
    pub(crate) heads: Option<usize>,
    /// `num_key_value_heads`; as many as query heads, where both are absent.
    pub(crate) kv_heads: Option<usize>,
    /// `head_dim`; a head's share of H, where both are absent.
    pub(crate) head_dim: Option<usize>,
    /// `vocab_size`.
    pub(crate) vocab: Option<usize>,
    /// `max_position_embeddings`.
    pub(crate) context: Option<usize>,
    /// `rms_norm_eps`.
    pub(crate) eps: Option<f32>,
    /// `tie_word_embeddings`.
    pub(crate) tied: bool,
    /// The activation, under the family's name for it.
    pub(crate) activation: (&'static str, Activation),
}

impl SizeDefaults {
    /// Of families whose published configs are complete.
    pub(crate) const NONE: SizeDefaults = SizeDefaults {
        heads: None,
        kv_heads: None,
        head_dim: None,
        vocab: None,
        context: None,
        eps: None,
        tied: false,
        activation: ("hidden_act", Activation::Silu),
    };
}

impl Sizes {
    /// Reads them from a complete config.
    pub(crate) fn read(s: &mut Section) -> Result<Self> {
        Self::read_with(s, &SizeDefaults::NONE)
    }

    /// Reads them; what concerns training alone is dropped.
    pub(crate) fn read_with(s: &mut Section, defaults: &SizeDefaults) -> Result<Self> {
        s.ignore(&[
            "attention_dropout",
            "output_router_logits",
            "router_aux_loss_coef",
            // Written by older versions of transformers: how a projection is split, not what it computes.
            "pretraining_tp",
        ]);
        let size = |s: &mut Section, key: &str, default: Option<usize>| match default {
            Some(default) => s.size_or(key, default),
            None => s.size(key),
        };
        let hidden = s.size("hidden_size")?;
        let heads = size(s, "num_attention_heads", defaults.heads)?;
        let kv_heads = s.size_or("num_key_value_heads", defaults.kv_heads.unwrap_or(heads))?;
        divides(s, "num_key_value_heads", kv_heads, heads)?;
        let head_dim = match s.optional_size("head_dim")?.or(defaults.head_dim) {
            Some(head_dim) => head_dim,
            None => {
                divides(s, "num_attention_heads", heads, hidden)?;
                hidden / heads
            }
        };
        let (key, default) = defaults.activation;
        Ok(Sizes {
            hidden,
            layers: s.layers()?,
            heads,
            kv_heads,
            head_dim,
            vocab: size(s, "vocab_size", defaults.vocab)?,
            context: size(s, "max_position_embeddings", defaults.context)?,
            eps: eps(s, defaults.eps)?,
            tied: s.optional("tie_word_embeddings")?.unwrap_or(defaults.tied),
            activation: activation(s, key, default)?,
        })
    }
}

/// `rms_norm_eps`, which may be absent where there is a default.
pub(crate) fn eps(s: &mut Section, default: Option<f32>) -> Result<f32> {
    const KEY: &str = "rms_norm_eps";
    match s.optional_positive(KEY)?.or(default) {
        Some(eps) => Ok(eps),
        None => Err(s.wrong(KEY, "a number above 0", &Value::Null)),
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
    if experts > usize::from(u16::MAX) {
        return Err(s.wrong(of_all[0], "at most 65535", &Value::from(experts)));
    }
    match top_k <= experts {
        true => Ok((experts, top_k)),
        false => Err(s.wrong(per_token, &format!("at most {experts}"), &Value::from(top_k))),
    }
}

/// Layers after the last that predict further tokens, under either of their names.
pub(crate) fn predictors(s: &mut Section) -> Result<usize> {
    let published = s.optional_count("num_nextn_predict_layers")?;
    Ok(s.optional_count("num_mtp_layers")?.or(published).unwrap_or(0))
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
    let config = RopeConfig::read(s, RopeDefaults::whole(theta, sizes.head_dim, sizes.context))?;
    Ok(Rope::new(whole_head(s, config)?, Pairing::Halves))
}

/// Refuses to turn a part of a head, in families whose reference computes the frequencies of the part and
/// then turns the whole head by them.
pub(crate) fn whole_head(s: &Section, config: RopeConfig) -> Result<RopeConfig> {
    match config.fraction == 1.0 {
        true => Ok(config),
        false => Err(s.unsupported("partial_rotary_factor", &Value::from(config.fraction))),
    }
}
