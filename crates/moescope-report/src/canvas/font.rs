//! The embedded font: text widths for every output, glyphs for PNG.

use std::sync::OnceLock;

use ab_glyph::{Font, FontRef, GlyphId, PxScale, ScaleFont, point};

/// DejaVu Sans, so that PNG text does not depend on the fonts of the machine. Browsers use their own
/// font for SVG; DejaVu is wider than the usual ones, so what fits here fits there.
static DEJAVU_SANS: &[u8] = include_bytes!("../../assets/DejaVuSans.ttf");

fn font() -> &'static FontRef<'static> {
    static FONT: OnceLock<FontRef<'static>> = OnceLock::new();
    FONT.get_or_init(|| {
        // The bytes are compiled in; the tests of this file parse them.
        FontRef::try_from_slice(DEJAVU_SANS).expect("the embedded font is valid")
    })
}

/// ab_glyph scales by line height, everyone else by the em.
fn scale(em: f64) -> PxScale {
    let font = font();
    let units = font.units_per_em().unwrap_or(2048.0);
    PxScale::from((em * f64::from(font.height_unscaled() / units)) as f32)
}

/// Width of a text at a font size of `em` pixels. Characters the font lacks count a full em, which
/// is what CJK glyphs of other fonts take.
pub(crate) fn text_width(text: &str, em: f64) -> f64 {
    let scaled = font().as_scaled(scale(em));
    text.chars()
        .map(|character| match scaled.glyph_id(character) {
            GlyphId(0) => em,
            glyph => f64::from(scaled.h_advance(glyph)),
        })
        .sum()
}

/// Width of a bold text: bold faces run about a sixth wider.
pub(crate) fn bold_width(text: &str, em: f64) -> f64 {
    text_width(text, em) * 1.17
}

/// The longest beginning of a text that fits into `width`, with an ellipsis where it was cut.
pub(crate) fn fit(text: &str, em: f64, width: f64) -> String {
    fit_by(text, width, |text| text_width(text, em))
}

/// [`fit`] with another way to measure.
pub(crate) fn fit_by(text: &str, width: f64, measure: impl Fn(&str) -> f64) -> String {
    if measure(text) <= width {
        return text.to_owned();
    }
    let room = width - measure("…");
    let mut used = 0.0;
    let mut cut = String::new();
    for character in text.chars() {
        used += measure(character.encode_utf8(&mut [0; 4]));
        if used > room {
            break;
        }
        cut.push(character);
    }
    cut.push('…');
    cut
}

/// Calls `pixel(x, y, coverage)` for every pixel a text covers, baseline at y = 0, start at x = 0.
/// A character the font lacks shows as the font's hollow box.
pub(crate) fn rasterise(text: &str, em: f64, mut pixel: impl FnMut(i32, i32, f32)) {
    let font = font();
    let scale = scale(em);
    let scaled = font.as_scaled(scale);
    let mut x = 0.0;
    let mut previous = None;
    for character in text.chars() {
        let glyph = scaled.glyph_id(character);
        if let Some(previous) = previous {
            x += scaled.kern(previous, glyph);
        }
        previous = Some(glyph);
        if let Some(outline) =
            font.outline_glyph(glyph.with_scale_and_position(scale, point(x, 0.0)))
        {
            let bounds = outline.px_bounds();
            let (left, top) = (bounds.min.x as i32, bounds.min.y as i32);
            outline.draw(|dx, dy, coverage| {
                pixel(left + dx as i32, top + dy as i32, coverage.min(1.0));
            });
        }
        x += if glyph.0 == 0 { em as f32 } else { scaled.h_advance(glyph) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_width_and_pixels() {
        assert!((text_width("0", 100.0) - 63.6).abs() < 1.0);
        assert_eq!(text_width("日本", 10.0), 20.0);
        let mut covered = 0;
        rasterise("Layer 日", 20.0, |_, _, coverage| covered += usize::from(coverage > 0.5));
        assert!(covered > 100);
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(fit("short", 12.0, 100.0), "short");
        let cut = fit(&"x".repeat(500), 12.0, 100.0);
        assert!(cut.ends_with('…') && text_width(&cut, 12.0) <= 100.0);
        assert_eq!(fit("anything", 12.0, 0.0), "…");
    }
}
