//! Rotary position embedding (J. Su et al., arXiv 2104.09864), in the half-split layout of Hugging Face:
//! dimension i is paired with i + R/2.

use burn::tensor::{Device, Tensor, TensorData};

/// Frequencies of a rotary embedding.
#[derive(Clone, Debug)]
pub struct Rope {
    /// Angle per position for each pair, R/2 of them; 0 leaves a pair as it is.
    inv_freq: Vec<f32>,
}

/// Cosines and sines of the positions of one forward pass, `[S, R/2]` each.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// Cosines.
    pub cos: Tensor<2>,
    /// Sines.
    pub sin: Tensor<2>,
}

impl Rope {
    /// The default kind: theta^(-2i/D) for all D/2 pairs.
    pub fn standard(theta: f64, head_dim: usize) -> Self {
        Self::proportional(theta, head_dim, 1.0)
    }

    /// The proportional kind: frequencies as of the whole head, of which only the first `fraction`
    /// turns (`_compute_proportional_rope_parameters` of transformers 5.23.0).
    pub fn proportional(theta: f64, head_dim: usize, fraction: f64) -> Self {
        let turning = (fraction * head_dim as f64 / 2.0) as usize;
        let frequency = |i: usize| match i < turning {
            // In f32 like the reference, whose rounding is part of what a model was trained with.
            true => 1.0 / (theta as f32).powf((2 * i) as f32 / head_dim as f32),
            false => 0.0,
        };
        Rope { inv_freq: (0..head_dim / 2).map(frequency).collect() }
    }

    /// Cosines and sines for positions `start..start + seq`.
    pub fn rotation(&self, start: usize, seq: usize, device: &Device) -> Rotation {
        let pairs = self.inv_freq.len();
        let (mut cos, mut sin) = (Vec::with_capacity(seq * pairs), Vec::with_capacity(seq * pairs));
        for position in start..start + seq {
            for frequency in &self.inv_freq {
                let (s, c) = (position as f32 * frequency).sin_cos();
                cos.push(c);
                sin.push(s);
            }
        }
        let upload = |values| Tensor::from_data(TensorData::new(values, [seq, pairs]), device);
        Rotation { cos: upload(cos), sin: upload(sin) }
    }
}

impl Rotation {
    /// Rotates `x [B, N, S, D]` in Burn operations; D is twice the number of pairs.
    pub(crate) fn compose(&self, x: Tensor<4>) -> Tensor<4> {
        let [b, n, s, d] = x.dims();
        let half = d / 2;
        let low = x.clone().slice([0..b, 0..n, 0..s, 0..half]);
        let high = x.slice([0..b, 0..n, 0..s, half..d]);
        let cos = self.cos.clone().unsqueeze::<4>();
        let sin = self.sin.clone().unsqueeze::<4>();
        let first = low.clone() * cos.clone() - high.clone() * sin.clone();
        Tensor::cat(vec![first, high * cos + low * sin], 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proportional_turns_the_first_part_only() {
        let rope = Rope::proportional(1e6, 32, 0.25);
        assert_eq!(rope.inv_freq.len(), 16);
        assert_eq!(rope.inv_freq[0], 1.0);
        assert!((f64::from(rope.inv_freq[3]) - 1e6f64.powf(-6.0 / 32.0)).abs() < 1e-8);
        assert!(rope.inv_freq[4..].iter().all(|&f| f == 0.0));
    }
}
