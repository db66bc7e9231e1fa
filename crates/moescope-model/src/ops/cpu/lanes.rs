//! Dot products and weighted sums over rows, in lanes.

use half::{bf16, f16};

use super::math;

/// Lanes summed side by side: two AVX2 registers, one AVX-512 register, four NEON registers.
const LANES: usize = 16;

/// An element weights are stored as.
pub(crate) trait Weight: Copy + Send + Sync + 'static {
    /// Widens to f32. Weights are finite: infinities and NaN were refused when loading.
    fn f32(self) -> f32;
}

impl Weight for f32 {
    #[inline(always)]
    fn f32(self) -> f32 {
        self
    }
}

impl Weight for bf16 {
    #[inline(always)]
    fn f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl Weight for f16 {
    /// Shifts the exponent into place and rescales by 2^112, which also normalises subnormals;
    /// unlike the conversion instruction this vectorises on every target.
    #[inline(always)]
    fn f32(self) -> f32 {
        let bits = u32::from(self.to_bits());
        let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
        f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16)
    }
}

/// Dot products of `R` rows with `x`.
#[inline(always)]
pub(crate) fn dots<const R: usize, W: Weight>(rows: [&[W]; R], x: &[f32]) -> [f32; R] {
    let mut sums = [[0.0f32; LANES]; R];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for (c, x) in chunks.iter().enumerate() {
        for r in 0..R {
            let row = &rows[r][c * LANES..(c + 1) * LANES];
            for l in 0..LANES {
                sums[r][l] = row[l].f32().mul_add(x[l], sums[r][l]);
            }
        }
    }
    let mut out = [0.0; R];
    for r in 0..R {
        let mut sum = total(sums[r]);
        for (w, x) in rows[r][chunks.len() * LANES..].iter().zip(tail) {
            sum += w.f32() * x;
        }
        out[r] = sum;
    }
    out
}

/// Sum of the lanes, halves onto halves.
#[inline(always)]
fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            lanes[l] += lanes[l + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `out += a * x`.
#[inline(always)]
pub(crate) fn axpy(a: f32, x: &[f32], out: &mut [f32]) {
    for (o, x) in out.iter_mut().zip(x) {
        *o = x.mul_add(a, *o);
    }
}

/// Sum of squares.
#[inline(always)]
pub(crate) fn sum_of_squares(x: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for l in 0..LANES {
            sums[l] = chunk[l].mul_add(chunk[l], sums[l]);
        }
    }
    let mut sum = total(sums);
    for x in tail {
        sum += x * x;
    }
    sum
}

/// Largest element; `-inf` of none.
#[inline(always)]
pub(crate) fn maximum(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for l in 0..LANES {
            // A comparison instead of `f32::max`, whose NaN rules cost an instruction per lane.
            lanes[l] = if chunk[l] > lanes[l] { chunk[l] } else { lanes[l] };
        }
    }
    let mut max = f32::NEG_INFINITY;
    for &x in lanes.iter().chain(tail) {
        max = if x > max { x } else { max };
    }
    max
}

/// Sum of all elements.
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for l in 0..LANES {
            sums[l] += chunk[l];
        }
    }
    let mut sum = total(sums);
    for x in tail {
        sum += x;
    }
    sum
}

/// Sum of e^(x - shift) over all elements.
#[inline(always)]
pub(crate) fn sum_of_exp(x: &[f32], shift: f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for l in 0..LANES {
            sums[l] += math::exp(chunk[l] - shift);
        }
    }
    let mut sum = total(sums);
    for x in tail {
        sum += math::exp(x - shift);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_half_widens_exactly() {
        for bits in 0..=u16::MAX {
            let (h, b) = (f16::from_bits(bits), bf16::from_bits(bits));
            if h.is_finite() {
                assert_eq!(Weight::f32(h).to_bits(), h.to_f32_const().to_bits(), "f16 {bits:#x}");
            }
            if b.is_finite() {
                assert_eq!(Weight::f32(b).to_bits(), b.to_f32_const().to_bits(), "bf16 {bits:#x}");
            }
        }
    }

    #[test]
    fn dot_products_of_every_length() {
        for n in 0..70 {
            let row: Vec<f32> = (0..n).map(|i| (i % 7) as f32 - 3.0).collect();
            let x: Vec<f32> = (0..n).map(|i| (i % 5) as f32 - 2.0).collect();
            let want: f32 = row.iter().zip(&x).map(|(a, b)| a * b).sum();
            assert_eq!(dots([&row, &row], &x), [want; 2]);
            assert_eq!(sum_of_squares(&x), x.iter().map(|x| x * x).sum::<f32>());
            let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(maximum(&x), max);
        }
    }
}
