//! MXFP4: 4-bit floats in blocks of 32 that share a power of two (OCP Microscaling Formats, version 1.0),
//! as gpt-oss is published.
//!
//! Checked against `convert_moe_packed_tensors` of transformers 5.23.0, `integrations/mxfp4.py`.

use rayon::prelude::*;

/// Values that share a scale.
pub(crate) const BLOCK: usize = 32;
/// Bytes of a block: two values each, the low half first.
pub(crate) const BLOCK_BYTES: usize = BLOCK / 2;

/// The values of the 16 codes (E2M1).
const CODES: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// A stack of quantised rows, as stored.
pub(crate) struct Rows<'a> {
    /// `[R, ceil(columns / 32), 16]`.
    pub(crate) blocks: &'a [u8],
    /// `[R, ceil(columns / 32)]`, exponents of two with a bias of 127.
    pub(crate) scales: &'a [u8],
    /// Values of a row.
    pub(crate) columns: usize,
}

impl Rows<'_> {
    /// Decodes rows into `out`, the i-th of which is the stored row `row(i)`.
    ///
    /// A scale that stands for no number (255) makes its block infinite or NaN.
    pub(crate) fn decode(&self, row: impl Fn(usize) -> usize + Sync, out: &mut [f32]) {
        let blocks = self.columns.div_ceil(BLOCK);
        out.par_chunks_mut(self.columns).enumerate().for_each(|(i, out)| {
            let first = row(i) * blocks;
            let codes = &self.blocks[first * BLOCK_BYTES..(first + blocks) * BLOCK_BYTES];
            let scales = &self.scales[first..first + blocks];
            let (codes, _) = codes.as_chunks::<BLOCK_BYTES>();
            for ((codes, scale), out) in codes.iter().zip(scales).zip(out.chunks_mut(BLOCK)) {
                // In f64: the smallest and the largest exponent have no normal f32.
                let scale = 2f64.powi(i32::from(*scale) - 127) as f32;
                let values = codes.iter().flat_map(|byte| [byte & 15, byte >> 4]);
                for (out, code) in out.iter_mut().zip(values) {
                    *out = CODES[usize::from(code)] * scale;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes written by hand: every code, both halves of a byte, three scales, a row that ends within a
    /// block, rows in another order.
    #[test]
    fn bytes_decode_as_the_format_says() {
        let mut blocks = vec![0u8; 2 * 2 * BLOCK_BYTES];
        for (i, byte) in blocks[..8].iter_mut().enumerate() {
            // Codes 0 to 15 in order: 0x10, 0x32, ...
            *byte = (2 * i + ((2 * i + 1) << 4)) as u8;
        }
        blocks[BLOCK_BYTES] = 0x7a; // second block of row 0: -1, then 6
        blocks[2 * BLOCK_BYTES] = 0xf1; // row 1: 0.5, then -6
        let scales = [127, 130, 125, 0];
        let rows = Rows { blocks: &blocks, scales: &scales, columns: 34 };
        let mut out = vec![9.0; 2 * 34];
        rows.decode(|i| 1 - i, &mut out);
        assert_eq!(out[..3], [0.125, -1.5, 0.0]);
        let first = &out[34..];
        assert_eq!(first[..8], [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
        assert_eq!(first[8..16], [-0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0]);
        assert!(first[8].is_sign_negative());
        assert_eq!(first[32..], [-8.0, 48.0]);
    }

    #[test]
    fn the_ends_of_the_exponent() {
        let mut blocks = [0u8; BLOCK_BYTES];
        blocks[0] = 0x27; // 6, then 1
        let decode = |scale: u8| {
            let mut out = vec![0.0; 2];
            Rows { blocks: &blocks, scales: &[scale], columns: 2 }.decode(|i| i, &mut out);
            out
        };
        assert_eq!(decode(0)[1], 2f32.powi(-126) / 2.0);
        assert_eq!(decode(252), [6.0 * 2f32.powi(125), 2f32.powi(125)]);
        assert!(decode(255).iter().all(|x| !x.is_finite()));
    }
}
