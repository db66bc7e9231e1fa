//! Config keys that mean the same in every family.

use serde_json::{Value, json};

use crate::{
    config::Section,
    error::Result,
    ops::{
        activation::Activation,
        rope::{Pairing, Rope, RopeConfig, RopeDefaults},
        router::{Groups, RouterRule, Scoring},
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
            layers: s.size("num_hidden_layers")?,
            heads,
            kv_heads,
            head_dim,
            vocab: size(s, "vocab_size", defaults.vocab)?,
            context: size(s, "max_position_embeddings", defaults.context)?,
            eps: match defaults.eps {
                Some(eps) => s.optional("rms_norm_eps")?.unwrap_or(eps),
                None => s.required("rms_norm_eps")?,
            },
            tied: s.optional("tie_word_embeddings")?.unwrap_or(defaults.tied),
            activation: activation(s, key, default)?,
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

/// What a family with sigmoid scores means by a key its config does not have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SigmoidDefaults {
    /// `n_group`.
    pub(crate) groups: usize,
    /// `topk_group`.
    pub(crate) chosen: usize,
    /// `routed_scaling_factor`.
    pub(crate) scale: f32,
}

/// Sigmoid scores, groups, renormalisation and scale, as DeepSeek-V3 and its kin spell them.
pub(crate) fn sigmoid_rule(
    s: &mut Section,
    experts: usize,
    top_k: usize,
    defaults: SigmoidDefaults,
) -> Result<RouterRule> {
    let count = s.size_or("n_group", defaults.groups)?;
    let chosen = s.size_or("topk_group", defaults.chosen)?;
    divides(s, "n_group", count, experts)?;
    let size = experts / count;
    if count > 1 && size < 2 {
        // A group is judged by its two best experts.
        let expected = format!("groups of at least two of {experts} experts");
        return Err(s.wrong("n_group", &expected, &Value::from(count)));
    }
    if chosen > count || chosen * size < top_k {
        let expected = format!("at most {count} groups, together of {top_k} experts or more");
        return Err(s.wrong("topk_group", &expected, &Value::from(chosen)));
    }
    Ok(RouterRule {
        top_k,
        scoring: Scoring::Sigmoid,
        groups: (chosen < count).then_some(Groups { count, chosen }),
        renormalise: s.optional("norm_topk_prob")?.unwrap_or(true),
        scale: s.optional("routed_scaling_factor")?.unwrap_or(defaults.scale),
    })
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
