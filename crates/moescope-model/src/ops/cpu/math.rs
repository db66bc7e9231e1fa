//! Elementary functions that vectorise: branch-free, no calls.

/// e^x to within 2 units in the last place for x in [-87, 88], clamped outside.
///
/// Splits x into n ln 2 + r with |r| <= ln 2 / 2, sums the series of e^r, and puts n into the exponent
/// (W. J. Cody and W. Waite, "Software Manual for the Elementary Functions", 1980).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = if x > 88.0 { 88.0 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = (-n).mul_add(LN_2_LOW, (-n).mul_add(LN_2_HIGH, x));
    let p = r.mul_add(1.0 / 5040.0, 1.0 / 720.0);
    let p = r.mul_add(p, 1.0 / 120.0);
    let p = r.mul_add(p, 1.0 / 24.0);
    let p = r.mul_add(p, 1.0 / 6.0);
    let p = r.mul_add(p, 0.5);
    let p = r.mul_add(p, 1.0);
    let p = r.mul_add(p, 1.0);
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    p * f32::from_bits(exponent)
}

/// Natural logarithm of a positive normal number, to about 2e-7 absolute near 1 and relative elsewhere.
///
/// Splits x into 2^n m with m in [1/sqrt 2, sqrt 2) and sums the series of the inverse hyperbolic
/// tangent of (m - 1) / (m + 1), half of ln m.
#[inline(always)]
pub(crate) fn ln(x: f32) -> f32 {
    const SQRT_HALF: u32 = 0x3f35_04f3;
    let n = (x.to_bits() as i32 - SQRT_HALF as i32) >> 23;
    let m = f32::from_bits((x.to_bits() as i32 - (n << 23)) as u32);
    let r = (m - 1.0) / (m + 1.0);
    let r2 = r * r;
    let p = r2.mul_add(1.0 / 9.0, 1.0 / 7.0);
    let p = r2.mul_add(p, 1.0 / 5.0);
    let p = r2.mul_add(p, 1.0 / 3.0);
    let p = r2.mul_add(p, 1.0);
    (n as f32).mul_add(std::f32::consts::LN_2, 2.0 * r * p)
}

/// Hyperbolic tangent, to about 1e-7 absolute.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// GELU in its tanh approximation (D. Hendrycks and K. Gimpel, arXiv 1606.08415).
#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    0.5 * x * (1.0 + tanh(SQRT_2_OVER_PI * (0.044_715 * x * x).mul_add(x, x)))
}

/// The logistic function.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// SiLU, x times the logistic function.
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// x times the logistic function of `alpha` x.
#[inline(always)]
pub(crate) fn swish(x: f32, alpha: f32) -> f32 {
    x / (1.0 + exp(-alpha * x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_over_its_range() {
        for i in -87_000..88_000 {
            let x = i as f32 / 1000.0;
            let want = f64::from(x).exp();
            let error = (f64::from(exp(x)) - want).abs() / want;
            assert!(error < 3e-7, "exp({x}): relative error {error}");
        }
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
    }

    #[test]
    fn ln_is_accurate() {
        for exponent in -120..120 {
            for i in 0..1000 {
                let x = (1.0 + i as f32 / 1000.0) * 2f32.powi(exponent);
                let want = f64::from(x).ln();
                let error = (f64::from(ln(x)) - want).abs();
                assert!(error <= 3e-7 * want.abs().max(1.0), "ln({x}): {error}");
            }
        }
    }

    #[test]
    fn activations_are_accurate() {
        for i in -20_000..20_000 {
            let x = i as f32 / 1000.0;
            let d = f64::from(x);
            assert!((f64::from(tanh(x)) - d.tanh()).abs() < 3e-7, "tanh({x})");
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (d + 0.044715 * d * d * d);
            let want = 0.5 * d * (1.0 + inner.tanh());
            assert!((f64::from(gelu_tanh(x)) - want).abs() < 2e-6, "gelu({x})");
            let want = d / (1.0 + (-d).exp());
            assert!((f64::from(silu(x)) - want).abs() < 2e-6, "silu({x})");
            let want = 1.0 / (1.0 + (-d).exp());
            assert!((f64::from(sigmoid(x)) - want).abs() < 2e-7, "sigmoid({x})");
            let want = d / (1.0 + (-1.702 * d).exp());
            assert!((f64::from(swish(x, 1.702)) - want).abs() < 3e-6, "swish({x})");
        }
    }
}
