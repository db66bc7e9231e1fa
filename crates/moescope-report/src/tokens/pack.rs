//! Columns of tokens as text that a page can hold: little-endian numbers in base64.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding (RFC 4648).
pub(super) fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let letter = ALPHABET[(group >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// 16-bit numbers.
pub(super) fn words(values: impl Iterator<Item = u16>) -> String {
    base64(&values.flat_map(u16::to_le_bytes).collect::<Vec<u8>>())
}

/// 32-bit numbers.
pub(super) fn double_words(values: impl Iterator<Item = u32>) -> String {
    base64(&values.flat_map(u32::to_le_bytes).collect::<Vec<u8>>())
}

/// Largest byte that is a value; 255 is none.
const STEPS: f32 = 254.0;

/// Values as bytes in 254ths of `full`; 255 where there is none.
pub(super) fn shares(values: impl Iterator<Item = f32>, full: f32) -> String {
    let byte = |value: f32| match value.is_finite() {
        true => (value / full * STEPS).round().clamp(0.0, STEPS) as u8,
        false => u8::MAX,
    };
    base64(&values.map(byte).collect::<Vec<u8>>())
}

/// Values as thousandths in 16 bits; 65535 where there is none.
pub(super) fn thousandths(values: impl Iterator<Item = f32>) -> String {
    words(values.map(|value| match value.is_finite() {
        true => (value * 1000.0).round().clamp(0.0, 65_534.0) as u16,
        false => u16::MAX,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vectors of RFC 4648.
    #[test]
    fn base64_as_the_standard_says() {
        let known = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (length, expected) in known.into_iter().enumerate() {
            assert_eq!(base64(&b"foobar"[..length]), expected);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn numbers_lie_little_endian_and_missing_ones_are_marked() {
        assert_eq!(words([0x6f66, 0x626f].into_iter()), "Zm9vYg==");
        assert_eq!(double_words([0x626f_6f66].into_iter()), "Zm9vYg==");
        assert_eq!(shares([0.0, 1.0, 2.0, f32::NAN].into_iter(), 2.0), base64(&[0, 127, 254, 255]));
        assert_eq!(thousandths([1.5, f32::NAN].into_iter()), words([1500, u16::MAX].into_iter()));
    }
}
