//! Rotary embeddings, one pair after the other.

use std::f64::consts::PI;

use serde_json::Value;

/// How positions turn heads of one kind.
pub(super) struct Rope<'a> {
    /// `rope_parameters`.
    pub(super) rope: &'a Value,
    /// `max_position_embeddings`.
    pub(super) context: usize,
    /// Whether 2i and 2i + 1 turn together, not i and i + R/2.
    pub(super) neighbours: bool,
}

impl Rope<'_> {
    /// Turns the first R dimensions of a head, in a pass whose last token is the `length`-th of its sequence.
    pub(super) fn turn(&self, mut head: Vec<f64>, position: usize, length: usize) -> Vec<f64> {
        let (frequencies, factor) = self.frequencies(head.len(), length);
        let pairs = frequencies.len();
        for (i, frequency) in frequencies.into_iter().enumerate() {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            let (sin, cos) = (sin * factor, cos * factor);
            let (at, with) = if self.neighbours { (2 * i, 2 * i + 1) } else { (i, i + pairs) };
            let (a, b) = (head[at], head[with]);
            (head[at], head[with]) = (a * cos - b * sin, b * cos + a * sin);
        }
        head
    }

    /// What `mscale_all_dim` makes of the scale of scores in latent attention.
    pub(super) fn score_factor(&self) -> f64 {
        match self.number("mscale_all_dim") {
            Some(weight) => self.mscale(weight).powi(2),
            None => 1.0,
        }
    }

    /// Angle per position of each pair that turns, and what cosines and sines are multiplied by.
    fn frequencies(&self, dim: usize, length: usize) -> (Vec<f64>, f64) {
        let theta = self.number("rope_theta").unwrap();
        let fraction = self.number("partial_rotary_factor").unwrap_or(1.0);
        let factor = self.number("factor").unwrap_or(1.0);
        let turning = (dim as f64 * fraction) as usize;
        let plain = |theta: f64, of: usize| move |i: usize| theta.powf(-2.0 * i as f64 / of as f64);
        let all = |theta: f64| (0..turning / 2).map(plain(theta, turning)).collect::<Vec<f64>>();
        match self.rope["rope_type"].as_str().unwrap_or("default") {
            "default" => (all(theta), 1.0),
            "linear" => (all(theta).iter().map(|f| f / factor).collect(), 1.0),
            "dynamic" => {
                let times = length.max(self.context) as f64 / self.context as f64;
                let power = turning as f64 / (turning as f64 - 2.0);
                (all(theta * (factor * times - factor + 1.0).powf(power)), 1.0)
            }
            "yarn" => (self.yarn(all(theta), turning), self.attention_factor()),
            "proportional" => {
                let turning = (fraction * dim as f64 / 2.0) as usize;
                let of_whole = plain(theta, dim);
                let frequency = |i| if i < turning { of_whole(i) / factor } else { 0.0 };
                ((0..dim / 2).map(frequency).collect(), 1.0)
            }
            other => panic!("no {other}"),
        }
    }

    /// Frequencies that turn often within the original context are kept, those that turn seldom divided.
    fn yarn(&self, plain: Vec<f64>, turning: usize) -> Vec<f64> {
        let theta = self.number("rope_theta").unwrap();
        let original = self.number("original_max_position_embeddings").unwrap();
        // Where along the dimensions a pair turns so often: from theta^(-d/R) original = 2 pi turns.
        let place =
            |turns: f64| turning as f64 / 2.0 * (original / (2.0 * PI * turns)).ln() / theta.ln();
        let (mut from, mut to) = (
            place(self.number("beta_fast").unwrap_or(32.0)),
            place(self.number("beta_slow").unwrap_or(1.0)),
        );
        if self.rope["truncate"].as_bool().unwrap_or(true) {
            (from, to) = (from.floor(), to.ceil());
        }
        let (from, mut to) = (from.max(0.0), to.min(turning as f64 - 1.0));
        if from == to {
            to += 0.001;
        }
        let scaled = |(i, f): (usize, &f64)| {
            let divided = ((i as f64 - from) / (to - from)).clamp(0.0, 1.0);
            divided * f / self.number("factor").unwrap() + (1.0 - divided) * f
        };
        plain.iter().enumerate().map(scaled).collect()
    }

    fn attention_factor(&self) -> f64 {
        let weights = (self.number("mscale"), self.number("mscale_all_dim"));
        self.number("attention_factor").unwrap_or_else(|| match weights {
            (Some(own), Some(all)) => self.mscale(own) / self.mscale(all),
            _ => self.mscale(1.0),
        })
    }

    fn mscale(&self, weight: f64) -> f64 {
        let factor = self.number("factor").unwrap();
        if factor > 1.0 { 1.0 + 0.1 * weight * factor.ln() } else { 1.0 }
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.rope[key].as_f64()
    }
}
