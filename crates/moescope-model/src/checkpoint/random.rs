//! Weights drawn at random: a model that runs at its true size without a checkpoint.
//!
//! Every value depends on the seed, the tensor's name and its place alone, so that neither the number of
//! threads nor the order of loading changes it. Scales are those of an untrained network: activations
//! stay finite through any number of layers, and routers, being random too, spread tokens nearly evenly.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::ops::cpu::simd::{Kernel, run};

/// Values that share one key.
const CHUNK: usize = 1 << 16;
/// Changes with the values a seed gives; part of the weights' hash.
const VERSION: &str = "moescope random weights 1";
/// Standard deviation of vectors around their mean.
const VECTOR_SPREAD: f32 = 0.02;
/// Standard deviation of the sum of four uniform 16-bit integers: 2^16 / sqrt(3).
const SUM_SPREAD: f32 = 37_837.226;

/// A seed for all tensors of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Random {
    pub(crate) seed: u64,
}

/// A number type values are written as.
pub(crate) trait Element: Copy + Send + Sync {
    /// Rounds a finite value to it.
    fn round(value: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn round(value: f32) -> Self {
        value
    }
}

impl Element for half::bf16 {
    /// To nearest even, without the branch for NaN that a general conversion needs.
    #[inline(always)]
    fn round(value: f32) -> Self {
        let bits = value.to_bits();
        half::bf16::from_bits(((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16)
    }
}

impl Element for half::f16 {
    #[inline(always)]
    fn round(value: f32) -> Self {
        half::f16::from_f32(value)
    }
}

impl Random {
    /// Appends the values of a tensor to `out`.
    pub(crate) fn extend<T: Element>(self, out: &mut Vec<T>, name: &str, shape: &[usize]) {
        let elements: usize = shape.iter().product();
        let start = out.len();
        out.reserve_exact(elements);
        let (key, law) = (self.key(name), Law::of(name, shape));
        out.spare_capacity_mut()[..elements]
            .par_chunks_mut(CHUNK)
            .enumerate()
            .for_each(|(chunk, out)| run(Fill { key: chunk_key(key, chunk as u64), law, out }));
        // SAFETY: the loop above has written every one of these elements.
        unsafe { out.set_len(start + elements) };
    }

    /// Stands for the values of a tensor in the hash over all weights.
    pub(crate) fn hash(self, name: &str, shape: &[usize]) -> blake3::Hash {
        blake3::hash(format!("{VERSION} {} {name} {shape:?}", self.seed).as_bytes())
    }

    fn key(self, name: &str) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(name.as_bytes());
        let mut key = [0; 8];
        hasher.finalize_xof().fill(&mut key);
        u64::from_le_bytes(key)
    }
}

/// What the values of a tensor are drawn from.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Law {
    mean: f32,
    deviation: f32,
}

impl Law {
    /// Biases and attention sinks lie around 0, other vectors (norms, scales) around 1; a matrix
    /// keeps the size of what it multiplies, taken to be its last dimension wide (that of gpt-oss's experts is the other, so
    /// theirs differ by the ratio of the two). Norms that add 1 to their weight end near 2.
    fn of(name: &str, shape: &[usize]) -> Self {
        let fan_in = match shape {
            [.., fan_in] if shape.len() > 1 => *fan_in,
            _ => 1,
        };
        match name {
            _ if name.ends_with("bias") || name.ends_with("sinks") => {
                Law { mean: 0.0, deviation: VECTOR_SPREAD }
            }
            _ if fan_in == 1 => Law { mean: 1.0, deviation: VECTOR_SPREAD },
            _ => Law { mean: 0.0, deviation: (fan_in as f32).powf(-0.5) },
        }
    }
}

/// The key of one chunk (the finaliser of SplitMix64, G. Steele et al., OOPSLA 2014).
fn chunk_key(key: u64, chunk: u64) -> u64 {
    let mut z = key.wrapping_add(chunk.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Fills one chunk with nearly normal values: sums of four uniform ones.
struct Fill<'a, T> {
    key: u64,
    law: Law,
    out: &'a mut [MaybeUninit<T>],
}

impl<T: Element> Kernel for Fill<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Fill { key, law, out } = self;
        let (low, high) = (key as u32, (key >> 32) as u32);
        let scale = law.deviation / SUM_SPREAD;
        for (i, out) in out.iter_mut().enumerate() {
            let a = mix(i as u32 ^ low);
            let b = mix(a ^ high);
            let sum = (a & 0xffff) + (a >> 16) + (b & 0xffff) + (b >> 16);
            let centred = sum as i32 - 2 * 0xffff;
            out.write(T::round((centred as f32).mul_add(scale, law.mean)));
        }
    }
}

/// A 32-bit integer hash with low bias (C. Wellons, hash-prospector, 2018), which vectorises.
#[inline(always)]
fn mix(mut x: u32) -> u32 {
    x = (x ^ x >> 16).wrapping_mul(0x7feb_352d);
    x = (x ^ x >> 15).wrapping_mul(0x846c_a68b);
    x ^ x >> 16
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    fn values<T: Element>(seed: u64, name: &str, shape: &[usize]) -> Vec<T> {
        let mut out = Vec::new();
        Random { seed }.extend(&mut out, name, shape);
        out
    }

    fn moments(values: &[f32]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        (mean, variance.sqrt())
    }

    #[test]
    fn matrices_keep_the_size_of_what_they_multiply() {
        let (mean, deviation) = moments(&values(1, "layers.0.mlp.up_proj.weight", &[700, 400]));
        assert!(mean.abs() < 5e-4 && (deviation - 0.05).abs() < 5e-4, "{mean} {deviation}");
    }

    #[test]
    fn norms_lie_around_one_and_biases_around_zero() {
        for (name, shape, centre) in [
            ("layers.3.input_layernorm.weight", &[5000][..], 1.0),
            ("layers.3.layer_scalar", &[1], 1.0),
            ("layers.3.mlp.router.bias", &[5000], 0.0),
            ("layers.3.mlp.experts.gate_up_proj_bias", &[40, 500], 0.0),
            ("layers.3.self_attn.sinks", &[64], 0.0),
        ] {
            let (mean, _) = moments(&values(2, name, shape));
            assert!((mean - centre).abs() < 0.1, "{name}: {mean}");
        }
    }

    #[test]
    fn values_depend_on_seed_name_and_place_alone() {
        let with_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| values::<f32>(7, "w.weight", &[3, CHUNK]))
        };
        let alone = with_threads(1);
        assert_eq!(alone, with_threads(5));
        let others =
            [values::<f32>(8, "w.weight", &[3, CHUNK]), values::<f32>(7, "v.weight", &[3, CHUNK])];
        for other in others {
            let equal = alone.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(equal < alone.len() / 1000, "{equal} equal values");
        }
        assert_ne!(alone[..CHUNK], alone[CHUNK..2 * CHUNK]);
    }

    #[test]
    fn narrow_types_hold_the_same_values_rounded() {
        let wide: Vec<f32> = values(3, "w.weight", &[64, 64]);
        let bf16s: Vec<bf16> = values(3, "w.weight", &[64, 64]);
        let f16s: Vec<f16> = values(3, "w.weight", &[64, 64]);
        for ((wide, b), f) in wide.iter().zip(bf16s).zip(f16s) {
            assert_eq!((bf16::from_f32(*wide), f16::from_f32(*wide)), (b, f));
        }
    }

    /// Correlated neighbours would make low-rank matrices.
    #[test]
    fn neighbours_are_independent() {
        let x: Vec<f32> = values(4, "w.weight", &[1 << 10, 1 << 10]);
        for lag in [1, 2, 1 << 10] {
            let products = x.iter().zip(&x[lag..]).map(|(a, b)| f64::from(a * b));
            let correlation =
                products.sum::<f64>() / x.iter().map(|a| f64::from(a * a)).sum::<f64>();
            assert!(correlation.abs() < 0.005, "lag {lag}: {correlation}");
        }
    }
}
