//! Rotary position embedding (J. Su et al., arXiv 2104.09864): pairs of dimensions turn by an angle that
//! grows with the position.
//!
//! Every kind of frequencies that transformers 5.23.0 knows for text (`modeling_rope_utils.py`); a head may
//! turn in part, its first R of D dimensions.

mod config;
mod frequencies;

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

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
    /// Positions of late passes, ready on their device, the last used first: a token needs no upload.
    ready: Arc<Mutex<VecDeque<Ready>>>,
}

/// Stretches of positions kept ready: those of a few sequences of unlike lengths.
const STRETCHES: usize = 16;

/// Positions whose cosines and sines lie on a device at least, from the first that a pass asked for on.
const READY: usize = 512;

/// Cosines and sines of neighbouring positions.
#[derive(Debug)]
struct Ready {
    device: Device,
    positions: Range<usize>,
    cos: Tensor<2>,
    sin: Tensor<2>,
}

/// Cosines and sines of the positions of one forward pass.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// Cosines, `[*, R/2]`: those of the pass are S rows from `first` on.
    pub cos: Tensor<2>,
    /// Sines, `[*, R/2]`.
    pub sin: Tensor<2>,
    /// The row of the first position.
    pub first: usize,
    /// Which dimensions turn together.
    pub pairing: Pairing,
}

impl Rope {
    /// The embedding a config asks for.
    pub fn new(config: RopeConfig, pairing: Pairing) -> Self {
        let inv_freq = frequencies(&config, None);
        let attention_factor = attention_factor(&config);
        Rope { config, pairing, inv_freq, attention_factor, ready: Arc::default() }
    }

    /// Longest context it is made for.
    pub fn context(&self) -> usize {
        self.config.extended_context()
    }

    /// Cosines and sines for positions `start..start + seq`.
    pub fn rotation(&self, start: usize, seq: usize, device: &Device) -> Rotation {
        let pairing = self.pairing;
        if self.config.changes_beyond().is_some_and(|length| start + seq > length) {
            // Frequencies of this pass alone.
            let inv_freq = frequencies(&self.config, Some(start + seq));
            let (cos, sin) = self.table(start..start + seq, &inv_freq, device);
            return Rotation { cos, sin, first: 0, pairing };
        }
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let serves = |ready: &Ready| {
            let Range { start: from, end } = ready.positions;
            ready.device == *device && from <= start && start + seq <= end
        };
        let known = ready.iter().position(serves).and_then(|at| ready.remove(at));
        let table = known.unwrap_or_else(|| {
            let positions = start..start + seq.max(READY);
            let (cos, sin) = self.table(positions.clone(), &self.inv_freq, device);
            Ready { device: device.clone(), positions, cos, sin }
        });
        let first = start - table.positions.start;
        let rotation = Rotation { cos: table.cos.clone(), sin: table.sin.clone(), first, pairing };
        ready.truncate(STRETCHES - 1);
        ready.push_front(table);
        rotation
    }

    /// Cosines and sines of `positions`, uploaded.
    fn table(
        &self,
        positions: Range<usize>,
        inv_freq: &[f32],
        device: &Device,
    ) -> (Tensor<2>, Tensor<2>) {
        let (rows, pairs) = (positions.len(), inv_freq.len());
        let mut cos = Vec::with_capacity(rows * pairs);
        let mut sin = Vec::with_capacity(rows * pairs);
        for position in positions {
            for frequency in inv_freq {
                let (s, c) = (position as f32 * frequency).sin_cos();
                cos.push(c * self.attention_factor);
                sin.push(s * self.attention_factor);
            }
        }
        let upload = |values| Tensor::from_data(TensorData::new(values, [rows, pairs]), device);
        (upload(cos), upload(sin))
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
            let rotation = rope.rotation(start, seq, &Device::flex());
            let pairs = rotation.sin.dims()[1];
            let sines = host(rotation.sin);
            f32s(&sines)[(rotation.first + seq) * pairs - 1].asin()
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

    /// Either pairing, whole and partial heads, against the definition.
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
            let turned = host(split(Some(&rotation)));
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
                let got = f32s(&turned)[(n * seq + s) * dim + d];
                assert!((got - want).abs() < 1e-6, "{pairing:?} {fraction} {d}: {got} {want}");
            }
        }
    }
}
