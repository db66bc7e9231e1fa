//! What configs say about rotary embeddings, in both spellings: `rope_parameters` of newer configs, and
//! `rope_theta` with `rope_scaling` of published ones.

use serde_json::Value;

use crate::{config::Section, error::Result};

/// A rotary embedding as a config describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// Part of the head that turns (`partial_rotary_factor`).
    pub fraction: f64,
    /// Size of a head, D.
    pub head_dim: usize,
    /// Longest context of the model (`max_position_embeddings`).
    pub context: usize,
    /// How frequencies are scaled.
    pub kind: RopeKind,
}

/// The kinds of frequencies (`rope_type`).
#[derive(Clone, Debug, PartialEq)]
pub enum RopeKind {
    /// theta^(-2i/R).
    Default,
    /// Divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// NTK-aware: the base grows with the length of the sequence beyond the context.
    Dynamic {
        /// Growth of the base.
        factor: f64,
    },
    /// YaRN (B. Peng et al., arXiv 2309.00071).
    Yarn(Yarn),
    /// LongRoPE (Y. Ding et al., arXiv 2402.13753).
    LongRope(LongRope),
    /// Llama 3.1: long waves are divided by a factor, short ones are not.
    Llama3(Llama3),
    /// Gemma 4: frequencies as of the whole head, of which only the first `fraction` turns.
    Proportional {
        /// Divides the frequencies.
        factor: f64,
    },
}

/// Parameters of YaRN.
#[derive(Clone, Debug, PartialEq)]
pub struct Yarn {
    /// How much longer the context became.
    pub factor: f64,
    /// Multiplies cosines and sines; `None` follows from the others.
    pub attention_factor: Option<f64>,
    /// Turns within the original context from which a frequency is kept.
    pub beta_fast: f64,
    /// Turns within the original context up to which a frequency is divided by the factor.
    pub beta_slow: f64,
    /// Weight of ln(factor) in the attention factor.
    pub mscale: Option<f64>,
    /// Weight of ln(factor) in what the attention factor is divided by, and in the scale of scores
    /// (see [`RopeConfig::score_factor`]).
    pub mscale_all_dim: Option<f64>,
    /// Context before it was extended.
    pub original: usize,
    /// Whether the bounds of the ramp are rounded to whole dimensions.
    pub truncate: bool,
}

/// Parameters of LongRoPE.
#[derive(Clone, Debug, PartialEq)]
pub struct LongRope {
    /// Divisor of each frequency in sequences beyond the original context, R/2 of them.
    pub long: Vec<f64>,
    /// Divisor of each frequency in shorter ones, R/2 of them.
    pub short: Vec<f64>,
    /// How much longer the context became.
    pub factor: f64,
    /// Multiplies cosines and sines; `None` follows from the others.
    pub attention_factor: Option<f64>,
    /// Context before it was extended.
    pub original: usize,
}

/// Parameters of Llama 3.1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3 {
    /// Divides the frequencies of long waves.
    pub factor: f64,
    /// Waves longer than `original / low` are long.
    pub low: f64,
    /// Waves shorter than `original / high` are short.
    pub high: f64,
    /// Context before it was extended.
    pub original: usize,
}

/// What a config leaves to the model it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct RopeDefaults {
    /// Base where the config has none.
    pub theta: f64,
    /// Part of the head that turns where the config says nothing.
    pub fraction: f64,
    /// Size of a head that turns, D.
    pub head_dim: usize,
    /// Longest context of the model (`max_position_embeddings`).
    pub context: usize,
}

impl RopeDefaults {
    /// Those of a model that turns whole heads.
    pub fn whole(theta: f64, head_dim: usize, context: usize) -> Self {
        RopeDefaults { theta, fraction: 1.0, head_dim, context }
    }
}

/// Keys that may lie beside the section that describes the embedding; those in the section win, but
/// for the original context.
struct Beside {
    theta: f64,
    fraction: f64,
    original: Option<usize>,
}

impl RopeConfig {
    /// Takes the keys of a model with one rotary embedding for all layers.
    ///
    /// # Errors
    ///
    /// A kind that is not known, a parameter it has no use for, is missing or impossible.
    pub fn read(s: &mut Section, defaults: RopeDefaults) -> Result<Self> {
        let beside = Beside::read(s, defaults)?;
        match spelled(s)? {
            Some(section) => Self::parse(section, defaults, &beside),
            None => {
                let Beside { theta, fraction, .. } = beside;
                RopeConfig { theta, fraction, ..Self::plain(defaults) }.checked(s)
            }
        }
    }

    /// Takes `rope_parameters` where it has a section per layer type, each with its defaults; the embeddings
    /// come back in the order of `types`. `None`, and nothing taken, where the config is not spelled so.
    ///
    /// # Errors
    ///
    /// As [`RopeConfig::read`].
    pub fn read_by_type(
        s: &mut Section,
        types: &[(&str, RopeDefaults)],
    ) -> Result<Option<Vec<Self>>> {
        let keys = s.keys_in("rope_parameters");
        let nested = types.iter().any(|(name, _)| keys.iter().any(|key| key == name));
        let Some(mut section) = (if nested { s.section("rope_parameters")? } else { None }) else {
            return Ok(None);
        };
        let mut configs = Vec::with_capacity(types.len());
        for &(name, defaults) in types {
            configs.push(match section.section(name)? {
                Some(own) => Self::parse(own, defaults, &Beside::nothing(defaults))?,
                None => Self::plain(defaults),
            });
        }
        section.finish()?;
        Ok(Some(configs))
    }

    /// The default kind.
    pub fn plain(defaults: RopeDefaults) -> Self {
        let RopeDefaults { theta, fraction, head_dim, context } = defaults;
        RopeConfig { theta, fraction, head_dim, context, kind: RopeKind::Default }
    }

    /// Dimensions that turn, R; all pairs of the head for the proportional kind, whose other pairs turn
    /// by 0.
    pub fn rotary_dim(&self) -> usize {
        match self.kind {
            RopeKind::Proportional { .. } => self.head_dim / 2 * 2,
            // An odd size is rounded up, as the reference does.
            _ => ((self.head_dim as f64 * self.fraction) as usize).next_multiple_of(2),
        }
    }

    /// What YaRN's `mscale_all_dim` multiplies the scale of scores by in models that use it for that
    /// (`yarn_apply_mscale` of DeepSeek-V3).
    pub fn score_factor(&self) -> f64 {
        match &self.kind {
            RopeKind::Yarn(Yarn { factor, mscale_all_dim: Some(weight), .. }) => {
                mscale(*factor, *weight).powi(2)
            }
            _ => 1.0,
        }
    }

    /// Longest context there are frequencies for: what the config says, or what YaRN or the dynamic kind make
    /// of the context before them.
    pub(super) fn extended_context(&self) -> usize {
        let times = |length: usize, factor: f64| {
            // No longer than positions can be counted.
            (length as f64 * factor).min(u32::MAX.into()) as usize
        };
        match &self.kind {
            RopeKind::Yarn(yarn) => self.context.max(times(yarn.original, yarn.factor)),
            RopeKind::Dynamic { factor } => self.context.max(times(self.context, *factor)),
            _ => self.context,
        }
    }

    /// The length of sequence beyond which frequencies change, for kinds that depend on it.
    pub(super) fn changes_beyond(&self) -> Option<usize> {
        match &self.kind {
            RopeKind::Dynamic { .. } => Some(self.context),
            RopeKind::LongRope(long) => Some(long.original),
            _ => None,
        }
    }

    /// Reads the section that describes the embedding.
    fn parse(mut s: Section, defaults: RopeDefaults, beside: &Beside) -> Result<Self> {
        let older = s.optional::<String>("type")?;
        let name = s.optional::<String>("rope_type")?.or(older);
        let theta = s.optional("rope_theta")?.unwrap_or(beside.theta);
        let fraction = s.optional("partial_rotary_factor")?.unwrap_or(beside.fraction);
        let kind = match name.as_deref().unwrap_or("default") {
            "default" => RopeKind::Default,
            "linear" => RopeKind::Linear { factor: factor(&mut s)? },
            "dynamic" => RopeKind::Dynamic { factor: factor(&mut s)? },
            "proportional" => {
                let present = s.keys().iter().any(|key| key == "factor");
                RopeKind::Proportional { factor: if present { factor(&mut s)? } else { 1.0 } }
            }
            "yarn" => RopeKind::Yarn(Yarn::read(&mut s, defaults, beside)?),
            "longrope" => RopeKind::LongRope(LongRope::read(&mut s, defaults, beside)?),
            "llama3" => RopeKind::Llama3(Llama3 {
                factor: factor(&mut s)?,
                low: positive(&mut s, "low_freq_factor")?,
                high: positive(&mut s, "high_freq_factor")?,
                original: original(&mut s, defaults, beside)?,
            }),
            other => return Err(s.unsupported("rope_type", &Value::from(other))),
        };
        let RopeDefaults { head_dim, context, .. } = defaults;
        let config = RopeConfig { theta, fraction, head_dim, context, kind }.checked(&s)?;
        s.finish()?;
        Ok(config)
    }

    /// Refuses what no embedding can be made of.
    pub(crate) fn checked(self, s: &Section) -> Result<Self> {
        // Written so that a NaN fails.
        if !(self.theta > 1.0 && self.theta.is_finite()) {
            return Err(s.wrong("rope_theta", "a base above 1", &Value::from(self.theta)));
        }
        let within = 0.0 < self.fraction && self.fraction <= 1.0;
        if !within || self.rotary_dim() == 0 || self.rotary_dim() > self.head_dim {
            let expected = format!("a part of the {} dimensions of a head", self.head_dim);
            return Err(s.wrong("partial_rotary_factor", &expected, &Value::from(self.fraction)));
        }
        if let RopeKind::LongRope(long) = &self.kind {
            let pairs = self.rotary_dim() / 2;
            for (key, list) in [("long_factor", &long.long), ("short_factor", &long.short)] {
                if list.len() != pairs || !list.iter().all(|factor| *factor > 0.0) {
                    let expected = format!("{pairs} numbers above 0, one per pair of dimensions");
                    return Err(s.wrong(key, &expected, &Value::from(list.clone())));
                }
            }
        }
        Ok(self)
    }
}

impl Beside {
    fn read(s: &mut Section, defaults: RopeDefaults) -> Result<Self> {
        Ok(Beside {
            theta: s.optional("rope_theta")?.unwrap_or(defaults.theta),
            fraction: s.optional("partial_rotary_factor")?.unwrap_or(defaults.fraction),
            original: s.optional("original_max_position_embeddings")?,
        })
    }

    fn nothing(defaults: RopeDefaults) -> Self {
        Beside { theta: defaults.theta, fraction: defaults.fraction, original: None }
    }
}

impl Yarn {
    fn read(s: &mut Section, defaults: RopeDefaults, beside: &Beside) -> Result<Self> {
        let original = original(s, defaults, beside)?;
        // To the reference 0 is as good as absent.
        let mut weight = |key: &str| -> Result<Option<f64>> {
            Ok(s.optional::<f64>(key)?.filter(|weight| *weight != 0.0))
        };
        let (beta_fast, beta_slow) = (weight("beta_fast")?, weight("beta_slow")?);
        let (mscale, mscale_all_dim) = (weight("mscale")?, weight("mscale_all_dim")?);
        Ok(Yarn {
            factor: factor_or_ratio(s, defaults, original)?,
            attention_factor: s.optional("attention_factor")?,
            beta_fast: beta_fast.unwrap_or(32.0),
            beta_slow: beta_slow.unwrap_or(1.0),
            mscale,
            mscale_all_dim,
            original,
            truncate: s.optional("truncate")?.unwrap_or(true),
        })
    }
}

impl LongRope {
    fn read(s: &mut Section, defaults: RopeDefaults, beside: &Beside) -> Result<Self> {
        let original = original(s, defaults, beside)?;
        Ok(LongRope {
            long: s.required("long_factor")?,
            short: s.required("short_factor")?,
            factor: factor_or_ratio(s, defaults, original)?,
            attention_factor: s.optional("attention_factor")?,
            original,
        })
    }
}

/// YaRN's growth of the softmax temperature with the factor.
pub(super) fn mscale(factor: f64, weight: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 }
}

/// The section that describes the embedding, whichever way it is spelled.
fn spelled(s: &mut Section) -> Result<Option<Section>> {
    let (newer, published) = (s.section("rope_parameters")?, s.section("rope_scaling")?);
    match (newer, published) {
        (Some(_), Some(_)) => {
            let found = Value::from("both");
            Err(s.wrong("rope_scaling", "either this or `rope_parameters`", &found))
        }
        (newer, published) => Ok(newer.or(published)),
    }
}

fn positive(s: &mut Section, key: &str) -> Result<f64> {
    match s.required::<f64>(key)? {
        n if n > 0.0 => Ok(n),
        n => Err(s.wrong(key, "a number above 0", &Value::from(n))),
    }
}

fn factor(s: &mut Section) -> Result<f64> {
    positive(s, "factor")
}

/// `factor`, or how often the original context fits into the model's.
fn factor_or_ratio(s: &mut Section, defaults: RopeDefaults, original: usize) -> Result<f64> {
    match s.optional::<f64>("factor")? {
        Some(n) if n > 0.0 => Ok(n),
        Some(n) => Err(s.wrong("factor", "a number above 0", &Value::from(n))),
        None => Ok(defaults.context as f64 / original as f64),
    }
}

/// The context before it was extended.
fn original(s: &mut Section, defaults: RopeDefaults, beside: &Beside) -> Result<usize> {
    const KEY: &str = "original_max_position_embeddings";
    let own = s.optional::<usize>(KEY)?;
    match beside.original.or(own).unwrap_or(defaults.context) {
        0 => Err(s.wrong(KEY, "a length above 0", &Value::from(0))),
        n => Ok(n),
    }
}
