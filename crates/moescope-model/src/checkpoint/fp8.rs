//! Weights in 8-bit floats with one scale per block, as DeepSeek-V3 is published.
//!
//! A weight `[R, C]` is stored as `float8_e4m3fn` with a second tensor `NAME_scale_inv`
//! `[ceil(R / 128), ceil(C / 128)]`: weight = stored value x scale of its block (DeepSeek-V3,
//! `inference/kernel.py`, `weight_dequant`; transformers 5.23.0, `integrations/finegrained_fp8.py`).

use rayon::prelude::*;

/// What the name of a scale tensor adds to that of its weight.
pub(crate) const SCALE_SUFFIX: &str = "_scale_inv";

/// Value of every `float8_e4m3fn`: 1 sign, 4 exponent (bias 7) and 3 mantissa bits; no infinity, and NaN
/// only with all bits below the sign set (Micikevicius et al. 2022, arXiv:2209.05433, table 1).
const E4M3: [f32; 256] = {
    let mut table = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = e4m3(code as u8);
        code += 1;
    }
    table
};

const fn e4m3(code: u8) -> f32 {
    let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = ((code >> 3) & 0xf, (code & 7) as f32);
    let magnitude = match (exponent, code & 7) {
        (15, 7) => return f32::NAN,
        (0, _) => mantissa / 8.0 * power_of_two(-6),
        (exponent, _) => (1.0 + mantissa / 8.0) * power_of_two(exponent as i32 - 7),
    };
    sign * magnitude
}

const fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// Scales of a weight's blocks.
pub(crate) struct BlockScales {
    /// Scale of each block, row by row.
    pub(crate) scales: Vec<f32>,
    /// Rows and columns of a block.
    pub(crate) block: [usize; 2],
    /// Columns of the weight.
    pub(crate) columns: usize,
}

impl BlockScales {
    /// Shape of the scale tensor of a weight `[rows, columns]`.
    pub(crate) fn shape(rows: usize, columns: usize, block: [usize; 2]) -> [usize; 2] {
        [rows.div_ceil(block[0]), columns.div_ceil(block[1])]
    }

    /// Decodes whole rows of a weight, the first of which is row `first_row`.
    pub(crate) fn decode(&self, codes: &[u8], first_row: usize) -> Vec<f32> {
        let per_row = self.columns.div_ceil(self.block[1]);
        let mut out = vec![0.0; codes.len()];
        out.par_chunks_mut(self.columns).zip(codes.par_chunks(self.columns)).enumerate().for_each(
            |(row, (out, codes))| {
                let at = (first_row + row) / self.block[0] * per_row;
                let blocks = out.chunks_mut(self.block[1]).zip(codes.chunks(self.block[1]));
                for ((out, codes), scale) in blocks.zip(&self.scales[at..at + per_row]) {
                    for (o, code) in out.iter_mut().zip(codes) {
                        *o = E4M3[usize::from(*code)] * scale;
                    }
                }
            },
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the format's definition: largest, smallest normal, smallest subnormal, NaN.
    #[test]
    fn e4m3_has_the_values_of_its_definition() {
        assert_eq!(E4M3[0x7e], 448.0);
        assert_eq!(E4M3[0xfe], -448.0);
        assert_eq!(E4M3[0x08], 0.015625);
        assert_eq!(E4M3[0x01], 0.001953125);
        assert_eq!(E4M3[0x38], 1.0);
        assert_eq!(E4M3[0x3c], 1.5);
        assert!(E4M3[0x7f].is_nan() && E4M3[0xff].is_nan());
        assert!(E4M3[0x80] == 0.0 && E4M3[0x80].is_sign_negative());
        // Monotone within a sign.
        assert!(E4M3[..0x7f].windows(2).all(|w| w[0] < w[1]));
    }

    #[test]
    fn every_block_has_its_scale() {
        // 3 x 5 in blocks of 2 x 2: scales 2 x 3.
        let scales = BlockScales {
            scales: vec![1.0, 10.0, 100.0, 2.0, 20.0, 200.0],
            block: [2, 2],
            columns: 5,
        };
        assert_eq!(BlockScales::shape(3, 5, [2, 2]), [2, 3]);
        let one = [0x38; 15];
        let whole = [
            [1.0, 1.0, 10.0, 10.0, 100.0],
            [1.0, 1.0, 10.0, 10.0, 100.0],
            [2.0, 2.0, 20.0, 20.0, 200.0],
        ];
        assert_eq!(scales.decode(&one, 0), whole.concat());
        assert_eq!(scales.decode(&one[..5], 2), whole[2]);
    }
}
