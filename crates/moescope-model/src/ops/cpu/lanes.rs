//! Dot products and weighted sums over rows, in lanes.

use half::{bf16, f16};

use super::math;

/// Lanes summed side by side: two AVX2 registers, one AVX-512 register, four NEON registers.
const LANES: usize = 16;
/// Lanes of a dot product with narrow weights: eight sums in flight hide the latency of widening and
/// multiplying, so that memory is what limits.
const NARROW_LANES: usize = 64;

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

/// Dot product of a row with `x`.
#[inline(always)]
pub(crate) fn dot<W: Weight>(row: &[W], x: &[f32]) -> f32 {
    if size_of::<W>() < size_of::<f32>() {
        return narrow_dot(row, x);
    }
    let (xs, x_tail) = x.as_chunks::<LANES>();
    let (rows, row_tail) = row.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (x, row) in xs.iter().zip(rows) {
        multiply_add(row, x, &mut sums);
    }
    total(sums) + dot_tail(row_tail, x_tail)
}

/// The same for weights narrower than f32.
#[inline(always)]
fn narrow_dot<W: Weight>(row: &[W], x: &[f32]) -> f32 {
    let (xs, x_tail) = x.as_chunks::<NARROW_LANES>();
    let (rows, row_tail) = row.as_chunks::<NARROW_LANES>();
    let mut sums = [0.0f32; NARROW_LANES];
    for (x, row) in xs.iter().zip(rows) {
        for l in 0..NARROW_LANES {
            sums[l] = row[l].f32().mul_add(x[l], sums[l]);
        }
    }
    let mut folded = [0.0; LANES];
    for part in sums.as_chunks::<LANES>().0 {
        for l in 0..LANES {
            folded[l] += part[l];
        }
    }
    total(folded) + dot_tail(row_tail, x_tail)
}

/// Dot products of four rows with `x`, which is read once for all of them.
///
/// Narrow weights go row by row: side by side, the compiler widens across rows, element by element,
/// at half the speed.
///
/// Four named accumulators: an array of them would be indexed, and so kept in memory.
#[inline(always)]
pub(crate) fn dots<W: Weight>([a, b, c, d]: [&[W]; 4], x: &[f32]) -> [f32; 4] {
    if size_of::<W>() < size_of::<f32>() {
        return [narrow_dot(a, x), narrow_dot(b, x), narrow_dot(c, x), narrow_dot(d, x)];
    }
    let (xs, x_tail) = x.as_chunks::<LANES>();
    let (a, a_tail) = a.as_chunks::<LANES>();
    let (b, b_tail) = b.as_chunks::<LANES>();
    let (c, c_tail) = c.as_chunks::<LANES>();
    let (d, d_tail) = d.as_chunks::<LANES>();
    let mut sum_a = [0.0; LANES];
    let mut sum_b = [0.0; LANES];
    let mut sum_c = [0.0; LANES];
    let mut sum_d = [0.0; LANES];
    for ((((x, a), b), c), d) in xs.iter().zip(a).zip(b).zip(c).zip(d) {
        multiply_add(a, x, &mut sum_a);
        multiply_add(b, x, &mut sum_b);
        multiply_add(c, x, &mut sum_c);
        multiply_add(d, x, &mut sum_d);
    }
    [
        total(sum_a) + dot_tail(a_tail, x_tail),
        total(sum_b) + dot_tail(b_tail, x_tail),
        total(sum_c) + dot_tail(c_tail, x_tail),
        total(sum_d) + dot_tail(d_tail, x_tail),
    ]
}

#[inline(always)]
fn multiply_add<W: Weight>(w: &[W; LANES], x: &[f32; LANES], sums: &mut [f32; LANES]) {
    for l in 0..LANES {
        sums[l] = w[l].f32().mul_add(x[l], sums[l]);
    }
}

#[inline(always)]
fn dot_tail<W: Weight>(row: &[W], x: &[f32]) -> f32 {
    let mut sum = 0.0;
    for (w, x) in row.iter().zip(x) {
        sum += w.f32() * x;
    }
    sum
}

/// Sum of the lanes, halves onto halves.
#[inline(always)]
fn total(lanes: [f32; LANES]) -> f32 {
    let mut eight = [0.0; 8];
    for l in 0..8 {
        eight[l] = lanes[l] + lanes[l + 8];
    }
    let mut four = [0.0; 4];
    for l in 0..4 {
        four[l] = eight[l] + eight[l + 4];
    }
    (four[0] + four[2]) + (four[1] + four[3])
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
        for n in 0..150 {
            let row: Vec<f32> = (0..n).map(|i| (i % 7) as f32 - 3.0).collect();
            let x: Vec<f32> = (0..n).map(|i| (i % 5) as f32 - 2.0).collect();
            let want: f32 = row.iter().zip(&x).map(|(a, b)| a * b).sum();
            assert_eq!(dots([&row[..]; 4], &x), [want; 4]);
            assert_eq!(dot(&row, &x), want);
            // Small integers are exact in every type, in any order.
            let narrow: Vec<bf16> = row.iter().map(|&w| bf16::from_f32(w)).collect();
            assert_eq!(dots([&narrow[..]; 4], &x), [want; 4]);
            assert_eq!(dot(&narrow, &x), want);
            assert_eq!(sum_of_squares(&x), x.iter().map(|x| x * x).sum::<f32>());
            let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(maximum(&x), max);
        }
    }
}
