//! Tails of the normal distribution.

/// P(Z > z) of a standard normal Z, to about 1e-14 relative.
///
/// `erfc(z / sqrt 2) / 2`: a power series near 0 (Abramowitz and Stegun 7.1.6) and a continued fraction
/// in the tail (7.1.14), which keeps its relative accuracy far out.
pub fn upper_tail(z: f64) -> f64 {
    if z.is_nan() {
        return f64::NAN;
    }
    if z < 0.0 {
        return 1.0 - upper_tail(-z);
    }
    let x = z / std::f64::consts::SQRT_2;
    if x < 2.0 {
        // erf x = 2 / sqrt pi * exp(-x²) * sum 2^n x^(2n+1) / (2n+1)!!
        let (mut term, mut sum, mut n) = (x, x, 1.0);
        while term > sum * 1e-17 {
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
            n += 1.0;
        }
        return 0.5 * (1.0 - std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum);
    }
    // sqrt pi * exp(x²) * erfc x = 1 / (x + (1/2) / (x + 1 / (x + (3/2) / (x + ...)))), from the inside.
    let mut fraction = x;
    for n in (1..=120).rev() {
        fraction = x + f64::from(n) / 2.0 / fraction;
    }
    0.25 * std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() / fraction
}
