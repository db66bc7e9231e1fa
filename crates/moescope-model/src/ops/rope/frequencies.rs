//! Frequencies of every kind of rotary embedding, in f32 like the reference, whose rounding is part of
//! what a model was trained with.

use std::f64::consts::PI;

use super::config::{Llama3, RopeConfig, RopeKind, Yarn, mscale};

/// Angle per position of each pair, R/2 of them, in a sequence of `length` tokens (`None`: no longer
/// than frequencies stay the same).
pub(super) fn frequencies(config: &RopeConfig, length: Option<usize>) -> Vec<f32> {
    let dim = config.rotary_dim();
    let plain = plain(config.theta, dim);
    match &config.kind {
        RopeKind::Default => plain,
        RopeKind::Linear { factor } => plain.iter().map(|f| f / *factor as f32).collect(),
        RopeKind::Dynamic { factor } => {
            let length = length.unwrap_or(0).max(config.context) as f64;
            let growth = factor * length / config.context as f64 - (factor - 1.0);
            // Two dimensions have one frequency, 1 whatever the base.
            let power = dim as f64 / (dim as f64 - 2.0).max(1.0);
            self::plain(config.theta * growth.powf(power), dim)
        }
        RopeKind::Yarn(yarn) => yarn_frequencies(config.theta, dim, yarn),
        RopeKind::LongRope(long) => {
            let beyond = length.is_some_and(|length| length > long.original);
            let divisors = if beyond { &long.long } else { &long.short };
            let theta = config.theta as f32;
            let one = |(i, divisor): (usize, &f64)| {
                1.0 / (*divisor as f32 * theta.powf((2 * i) as f32 / dim as f32))
            };
            divisors.iter().enumerate().map(one).collect()
        }
        RopeKind::Llama3(llama) => plain.iter().map(|f| llama_frequency(*f, llama)).collect(),
        RopeKind::Proportional { factor } => {
            let turning = (config.fraction * config.head_dim as f64 / 2.0) as usize;
            let frequency =
                |(i, f): (usize, f32)| if i < turning { f / *factor as f32 } else { 0.0 };
            // The exponent is a part of the whole head, odd or not.
            let whole = self::plain(config.theta, config.head_dim).into_iter();
            whole.enumerate().map(frequency).take(dim / 2).collect()
        }
    }
}

/// What cosines and sines are multiplied by.
pub(super) fn attention_factor(config: &RopeConfig) -> f32 {
    let factor = match &config.kind {
        RopeKind::Yarn(yarn) => {
            yarn.attention_factor.unwrap_or_else(|| match (yarn.mscale, yarn.mscale_all_dim) {
                (Some(own), Some(all)) => mscale(yarn.factor, own) / mscale(yarn.factor, all),
                _ => mscale(yarn.factor, 1.0),
            })
        }
        RopeKind::LongRope(long) => long.attention_factor.unwrap_or_else(|| match long.factor {
            factor if factor <= 1.0 => 1.0,
            factor => (1.0 + factor.ln() / (long.original as f64).ln()).sqrt(),
        }),
        _ => 1.0,
    };
    factor as f32
}

/// theta^(-2i/dim).
fn plain(theta: f64, dim: usize) -> Vec<f32> {
    let frequency = |i: usize| 1.0 / (theta as f32).powf((2 * i) as f32 / dim as f32);
    (0..dim.div_ceil(2)).map(frequency).collect()
}

/// Fast turns are kept, slow ones divided by the factor, those between mixed.
fn yarn_frequencies(theta: f64, dim: usize, yarn: &Yarn) -> Vec<f32> {
    // The dimension that makes this many turns within the original context.
    let dimension = |turns: f64| {
        dim as f64 * (yarn.original as f64 / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln())
    };
    let (mut low, mut high) = (dimension(yarn.beta_fast), dimension(yarn.beta_slow));
    if yarn.truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, mut high) = (low.max(0.0), high.min(dim as f64 - 1.0));
    if low == high {
        high += 0.001;
    }
    let frequency = |i: usize| {
        let position = (theta as f32).powf((2 * i) as f32 / dim as f32);
        let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
        let kept = 1.0 - ramp;
        1.0 / (yarn.factor as f32 * position) * (1.0 - kept) + 1.0 / position * kept
    };
    (0..dim / 2).map(frequency).collect()
}

/// Long waves are divided by the factor, short ones kept, those between mixed.
fn llama_frequency(frequency: f32, llama: &Llama3) -> f32 {
    let Llama3 { factor, low, high, original } = *llama;
    let wave = 2.0 * std::f32::consts::PI / frequency;
    let (long, short) = ((original as f64 / low) as f32, (original as f64 / high) as f32);
    if wave > long {
        frequency / factor as f32
    } else if wave < short {
        frequency
    } else {
        let smooth = (original as f32 / wave - low as f32) / (high - low) as f32;
        (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
    }
}
