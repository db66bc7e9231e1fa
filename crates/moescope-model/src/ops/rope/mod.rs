//! Rotary position embedding (J. Su et al., arXiv 2104.09864): pairs of dimensions turn by an angle that
//! grows with the position.
//!
//! Every kind of frequencies that transformers 5.23.0 knows for text (`modeling_rope_utils.py`); a head may
//! turn in part, its first R of D dimensions.

mod config;
mod frequencies;

use burn::tensor::{Device, Tensor, TensorData};

pub use self::config::{Llama3, LongRope, RopeConfig, RopeDefaults, RopeKind, Yarn};
use self::frequencies::{attention_factor, frequencies};

/// Which dimensions turn together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pairing {
    /// i with i + R/2 (`rotate_half`).
    #[default]
    Halves,
    /// 2i with 2i + 1 (`rope_interleave`).
    Neighbours,
}

/// A rotary embedding of one kind of head.
///
/// The dynamic kind and LongRoPE depend on the length of the sequence. They do what the reference does
/// with a KV cache: the frequencies of a pass are those of the longest position in it, and keys
/// cached by earlier passes stay as they were turned then.
#[derive(Clone, Debug)]
pub struct Rope {
    config: RopeConfig,
    pairing: Pairing,
    /// Angle per position for each pair, R/2 of them; 0 leaves a pair as it is.
    inv_freq: Vec<f32>,
    /// Multiplies cosines and sines.
    attention_factor: f32,
}

/// Cosines and sines of the positions of one forward pass.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// Cosines, `[S, R/2]`.
    pub cos: Tensor<2>,
    /// Sines, `[S, R/2]`.
    pub sin: Tensor<2>,
    /// Which dimensions turn together.
    pub pairing: Pairing,
}

impl Rope {
    /// The embedding a config asks for.
    pub fn new(config: RopeConfig, pairing: Pairing) -> Self {
        let inv_freq = frequencies(&config, None);
        let attention_factor = attention_factor(&config);
        Rope { config, pairing, inv_freq, attention_factor }
    }

    /// Longest context it is made for.
    pub fn context(&self) -> usize {
        self.config.extended_context()
    }

    /// Cosines and sines for positions `start..start + seq`.
    pub fn rotation(&self, start: usize, seq: usize, device: &Device) -> Rotation {
        let longer = self.config.changes_beyond().is_some_and(|length| start + seq > length);
        let longer = longer.then(|| frequencies(&self.config, Some(start + seq)));
        let inv_freq = longer.as_ref().unwrap_or(&self.inv_freq);
        let pairs = inv_freq.len();
        let (mut cos, mut sin) = (Vec::with_capacity(seq * pairs), Vec::with_capacity(seq * pairs));
        for position in start..start + seq {
            for frequency in inv_freq {
                let (s, c) = (position as f32 * frequency).sin_cos();
                cos.push(c * self.attention_factor);
                sin.push(s * self.attention_factor);
            }
        }
        let upload = |values| Tensor::from_data(TensorData::new(values, [seq, pairs]), device);
        Rotation { cos: upload(cos), sin: upload(sin), pairing: self.pairing }
    }
}

impl Rotation {
    /// Rotates `x [B, N, S, D]` in Burn operations; D is at least twice the number of pairs.
    pub(crate) fn compose(&self, x: Tensor<4>) -> Tensor<4> {
        let [b, n, s, d] = x.dims();
        let [_, pairs] = self.cos.dims();
        let part = |from, to| x.clone().slice([0..b, 0..n, 0..s, from..to]);
        let (low, high) = match self.pairing {
            Pairing::Halves => (part(0, pairs), part(pairs, 2 * pairs)),
            Pairing::Neighbours => {
                let both = part(0, 2 * pairs).reshape([b, n, s, pairs, 2]);
                let of = |i: usize| both.clone().slice([0..b, 0..n, 0..s, 0..pairs, i..i + 1]);
                (of(0).reshape([b, n, s, pairs]), of(1).reshape([b, n, s, pairs]))
            }
        };
        let cos = self.cos.clone().unsqueeze::<4>();
        let sin = self.sin.clone().unsqueeze::<4>();
        let first = low.clone() * cos.clone() - high.clone() * sin.clone();
        let second = high * cos + low * sin;
        let mut turned = match self.pairing {
            Pairing::Halves => vec![first, second],
            Pairing::Neighbours => {
                let both = vec![first.unsqueeze_dim::<5>(4), second.unsqueeze_dim(4)];
                vec![Tensor::cat(both, 4).reshape([b, n, s, 2 * pairs])]
            }
        };
        if 2 * pairs < d {
            turned.push(part(2 * pairs, d));
        }
        Tensor::cat(turned, 3)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Map, Value, json};

    use super::*;
    use crate::{
        config::Section,
        error::Result,
        ops::{
            attention::Heads,
            cpu::{f32s, host},
        },
    };

    /// What the functions in `ROPE_INIT_FUNCTIONS` of transformers 5.23.0 return, one call a line, run on
    /// NumPy's float32 in place of PyTorch's.
    const REFERENCE: &str = include_str!("../../../tests/fixtures/rope.jsonl");

    fn section(value: Value) -> Section {
        let Value::Object(map) = value else { panic!("not an object") };
        Section::new(Path::new("config.json"), "Test", map)
    }

    fn read(value: Value, head_dim: usize, context: usize) -> Result<RopeConfig> {
        let mut s = section(value);
        let config = RopeConfig::read(&mut s, RopeDefaults::whole(7.0, head_dim, context))?;
        s.finish()?;
        Ok(config)
    }

    #[test]
    fn every_kind_has_the_frequencies_of_the_reference_in_both_spellings() {
        for line in REFERENCE.lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            let size = |key: &str| case[key].as_u64().map(|n| n as usize);
            let (head_dim, context) = (size("head_dim").unwrap(), size("context").unwrap());
            let mut params: Map<String, Value> = case["params"].as_object().unwrap().clone();
            params.insert("rope_type".into(), case["kind"].clone());
            let newer = json!({"rope_parameters": params});
            let theta = params.remove("rope_theta");
            let kind = params.remove("rope_type");
            params.insert("type".into(), kind.unwrap());
            let published = json!({"rope_theta": theta, "rope_scaling": params});
            for spelled in [newer, published] {
                let config = read(spelled, head_dim, context).unwrap();
                let got = frequencies(&config, size("length"));
                let want: Vec<f64> = serde_json::from_value(case["inv_freq"].clone()).unwrap();
                assert_eq!(got.len(), want.len(), "{line}");
                for (got, want) in got.iter().zip(&want) {
                    // The two standard libraries round powers differently in the last place.
                    let off = (f64::from(*got) - want).abs();
                    assert!(off <= 1e-6 * want.abs(), "{got} {want} in {line}");
                }
                let want = case["attention_factor"].as_f64().unwrap();
                assert!((f64::from(attention_factor(&config)) - want).abs() < 1e-6, "{line}");
            }
        }
    }

    #[test]
    fn keys_beside_the_section_count_where_it_has_none() {
        let beside =
            read(json!({"rope_theta": 100.0, "partial_rotary_factor": 0.5}), 8, 64).unwrap();
        assert_eq!((beside.theta, beside.fraction, beside.rotary_dim()), (100.0, 0.5, 4));
        assert_eq!(beside.kind, RopeKind::Default);
        let absent = read(json!({}), 8, 64).unwrap();
        assert_eq!((absent.theta, absent.fraction), (7.0, 1.0));
        let yarn = json!({"type": "yarn", "original_max_position_embeddings": 16});
        let config =
            read(json!({"rope_scaling": yarn, "original_max_position_embeddings": 32}), 8, 64);
        let RopeKind::Yarn(yarn) = config.unwrap().kind else { panic!("not YaRN") };
        assert_eq!((yarn.original, yarn.factor), (32, 2.0));
    }

    #[test]
    fn layer_types_have_their_own() {
        let defaults = |theta| RopeDefaults::whole(theta, 8, 64);
        let types = [("sliding_attention", defaults(10.0)), ("full_attention", defaults(20.0))];
        let mut s = section(json!({"rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 30.0},
        }}));
        let both = RopeConfig::read_by_type(&mut s, &types).unwrap().unwrap();
        assert_eq!(both[0], RopeConfig::plain(defaults(10.0)));
        assert_eq!((both[1].theta, &both[1].kind), (30.0, &RopeKind::Linear { factor: 8.0 }));
        s.finish().unwrap();
        let mut s = section(json!({"rope_parameters": {"rope_theta": 30.0}}));
        assert!(RopeConfig::read_by_type(&mut s, &types).unwrap().is_none());
        assert_eq!(RopeConfig::read(&mut s, defaults(1.0)).unwrap().theta, 30.0);
    }

    #[test]
    fn what_is_unknown_or_impossible_is_refused_by_name() {
        for (scaling, says) in [
            (json!({"type": "spiral"}), ["rope_scaling.rope_type", "spiral"]),
            (json!({"type": "linear"}), ["rope_scaling.factor", "nothing"]),
            (json!({"type": "linear", "factor": 0}), ["rope_scaling.factor", "above 0"]),
            (json!({"type": "default", "factor": 8}), ["rope_scaling.factor", "8"]),
            (json!({"type": "yarn", "beta": 8}), ["rope_scaling.beta", "8"]),
            (json!({"rope_theta": 0.5}), ["rope_scaling.rope_theta", "above 1"]),
            (json!({"partial_rotary_factor": 1.5}), ["partial_rotary_factor", "8 dimensions"]),
            (json!({"partial_rotary_factor": 0.1}), ["partial_rotary_factor", "8 dimensions"]),
            (
                json!({"type": "longrope", "short_factor": [1, 1], "long_factor": [1, 1, 1, 1]}),
                ["short_factor", "4 numbers"],
            ),
        ] {
            let error = read(json!({"rope_scaling": scaling}), 8, 64).unwrap_err().to_string();
            for part in says {
                assert!(error.contains(part), "{error:?} does not say {part:?}");
            }
        }
        let both = json!({"rope_scaling": {"type": "default"}, "rope_parameters": {}});
        assert!(read(both, 8, 64).unwrap_err().to_string().contains("rope_scaling"));
        assert!(read(json!({}), 7, 64).is_err(), "an odd head can't turn as a whole");
    }

    #[test]
    fn scores_of_latent_attention_grow_with_mscale_all_dim() {
        let yarn = |all: f64| json!({"rope_scaling": {"type": "yarn", "factor": 40, "mscale_all_dim": all}});
        let want = (0.1 * 0.707 * 40f64.ln() + 1.0).powi(2);
        assert!((read(yarn(0.707), 8, 64).unwrap().score_factor() - want).abs() < 1e-12);
        assert_eq!(read(yarn(0.0), 8, 64).unwrap().score_factor(), 1.0);
        assert_eq!(read(json!({}), 8, 64).unwrap().score_factor(), 1.0);
    }

    #[test]
    fn a_pass_beyond_the_context_has_other_frequencies() {
        let scaling = json!({"type": "dynamic", "factor": 4.0});
        let config = read(json!({"rope_theta": 1e4, "rope_scaling": scaling}), 4, 8).unwrap();
        let rope = Rope::new(config.clone(), Pairing::Halves);
        let angles = |start, seq| {
            let sines = host(rope.rotation(start, seq, &Device::flex()).sin);
            f32s(&sines).last().unwrap().asin()
        };
        let near = 7.0 * frequencies(&config, None)[1];
        assert!((angles(7, 1) - near).abs() < 1e-6);
        let far = 8.0 * frequencies(&config, Some(9))[1];
        assert!((angles(8, 1) - far).abs() < 1e-6 && (angles(0, 9) - far).abs() < 1e-6);
        assert!((8.0 / 7.0 * near - far).abs() > 1e-3, "{near} {far}");
    }

    #[test]
    fn scaling_makes_the_context_longer() {
        let context = |scaling: Value| {
            let config = read(json!({"rope_scaling": scaling}), 8, 64).unwrap();
            Rope::new(config, Pairing::Halves).context()
        };
        assert_eq!(context(json!({"type": "default"})), 64);
        assert_eq!(context(json!({"type": "dynamic", "factor": 4.0})), 256);
        let yarn = |factor: f64, original: usize| json!({"type": "yarn", "factor": factor, "original_max_position_embeddings": original});
        assert_eq!(context(yarn(4.0, 32)), 128);
        // As published configs have it, already multiplied.
        assert_eq!(context(yarn(4.0, 16)), 64);
        assert_eq!(context(yarn(2.0, 16)), 64);
        // Both come from outside.
        assert_eq!(context(yarn(1e30, 64)), u32::MAX as usize);
        assert_eq!(context(json!({"type": "dynamic", "factor": 0.5})), 64);
    }

    /// Kernel and composition of either pairing, whole and partial heads, against the definition.
    #[test]
    fn pairs_turn_by_their_angle() {
        let (heads, seq, dim) = (2, 3, 10);
        let values: Vec<f32> = (0..seq * heads * dim).map(|i| (i as f32 * 0.7).sin()).collect();
        let device = Device::flex();
        for (pairing, fraction) in [
            (Pairing::Halves, 1.0),
            (Pairing::Halves, 0.4),
            (Pairing::Neighbours, 1.0),
            (Pairing::Neighbours, 0.6),
        ] {
            let config = json!({"rope_theta": 50.0, "partial_rotary_factor": fraction});
            let rope = Rope::new(read(config, dim, 64).unwrap(), pairing);
            let rotation = rope.rotation(4, seq, &device);
            let x = Tensor::from_data(TensorData::new(values.clone(), [seq, heads * dim]), &device);
            let split = |rotation| {
                Heads { norm: None, rotation }.split(&x, 0..heads * dim, [1, heads, seq, dim])
            };
            let composed = host(rotation.compose(split(None)));
            let kernel = host(split(Some(&rotation)));
            for (n, s, d) in (0..heads * seq * dim).map(|i| (i / dim / seq, i / dim % seq, i % dim))
            {
                let row = &values[s * heads * dim + n * dim..][..dim];
                let pairs = rope.inv_freq.len();
                let (i, first) = match pairing {
                    Pairing::Halves => (d % pairs, d < pairs),
                    Pairing::Neighbours => (d / 2, d % 2 == 0),
                };
                let want = if d >= 2 * pairs {
                    row[d]
                } else {
                    let (low, high) = match pairing {
                        Pairing::Halves => (row[i], row[i + pairs]),
                        Pairing::Neighbours => (row[2 * i], row[2 * i + 1]),
                    };
                    let (sin, cos) = ((4 + s) as f32 * rope.inv_freq[i]).sin_cos();
                    if first { low * cos - high * sin } else { high * cos + low * sin }
                };
                for got in [f32s(&composed), f32s(&kernel)] {
                    let got = got[(n * seq + s) * dim + d];
                    assert!((got - want).abs() < 1e-6, "{pairing:?} {fraction} {d}: {got} {want}");
                }
            }
        }
    }
}
