//! The embedded font: text widths for every output, glyphs for PNG.

use std::sync::OnceLock;

use ab_glyph::{Font, FontRef, GlyphId, PxScale, ScaleFont, point};

use super::system;

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

/// A text cut in its middle to fit into `width`: names of runs often differ at their end.
pub(crate) fn fit_middle(text: &str, width: f64, measure: impl Fn(&str) -> f64) -> String {
    if measure(text) <= width {
        return text.to_owned();
    }
    let characters: Vec<char> = text.chars().collect();
    let room = width - measure("…");
    let (mut head, mut tail, mut used) = (0, 0, 0.0);
    while head + tail < characters.len() {
        // In turns, the beginning first.
        let front = head <= tail;
        let next = if front { head } else { characters.len() - 1 - tail };
        used += measure(characters[next].encode_utf8(&mut [0; 4]));
        if used > room {
            break;
        }
        if front {
            head += 1;
        } else {
            tail += 1;
        }
    }
    let part = |characters: &[char]| characters.iter().collect::<String>();
    let (head, tail) = (part(&characters[..head]), part(&characters[characters.len() - tail..]));
    format!("{}…{}", head.trim_end(), tail.trim_start())
}

/// A text in at most two lines of a width, broken between words; what is left over is cut.
pub(crate) fn two_lines(text: &str, em: f64, width: f64) -> Vec<String> {
    if text_width(text, em) <= width {
        return vec![text.to_owned()];
    }
    let fits = |at: &usize| text_width(&text[..*at], em) <= width;
    let mut breaks = text.match_indices(' ').map(|(at, _)| at);
    match breaks.rfind(fits) {
        Some(at) => vec![text[..at].to_owned(), fit(text[at..].trim_start(), em, width)],
        None => vec![fit(text, em, width)],
    }
}

/// Calls `pixel(x, y, coverage)` for every pixel a text covers, baseline at y = 0, start at x = 0.
///
/// A character the font lacks comes from a font of the machine, or shows as a box with its code point in
/// it; it is one em wide either way.
pub(crate) fn rasterise(text: &str, em: f64, mut pixel: impl FnMut(i32, i32, f32)) {
    let scaled = font().as_scaled(scale(em));
    let mut x = 0.0;
    let mut previous = None;
    for character in text.chars() {
        let glyph = scaled.glyph_id(character);
        if glyph.0 == 0 {
            missing(character, em, x, &mut pixel);
            x += em as f32;
            previous = None;
            continue;
        }
        if let Some(previous) = previous {
            x += scaled.kern(previous, glyph);
        }
        previous = Some(glyph);
        draw_glyph(font(), glyph, scale(em), (x, 0.0), &mut pixel);
        x += scaled.h_advance(glyph);
    }
}

fn draw_glyph(
    font: &impl Font,
    glyph: GlyphId,
    scale: PxScale,
    (x, y): (f32, f32),
    pixel: &mut impl FnMut(i32, i32, f32),
) -> bool {
    let Some(outline) = font.outline_glyph(glyph.with_scale_and_position(scale, point(x, y)))
    else {
        return false;
    };
    let bounds = outline.px_bounds();
    let (left, top) = (bounds.min.x as i32, bounds.min.y as i32);
    outline.draw(|dx, dy, coverage| pixel(left + dx as i32, top + dy as i32, coverage.min(1.0)));
    true
}

/// Draws a character that the embedded font lacks into the em from `x`.
fn missing(character: char, em: f64, x: f32, pixel: &mut impl FnMut(i32, i32, f32)) {
    for font in system::fonts() {
        let glyph = font.glyph_id(character);
        if glyph.0 == 0 {
            continue;
        }
        let units = font.units_per_em().unwrap_or(1000.0);
        let em_of =
            |em: f64| PxScale::from((em * f64::from(font.height_unscaled() / units)) as f32);
        // What is wider than an em is made smaller, what is narrower stands in the middle of it.
        let advance = f64::from(font.h_advance_unscaled(glyph) / units);
        let size = em / advance.max(1.0);
        let left = x + ((em - advance.min(1.0) * em) / 2.0) as f32;
        if draw_glyph(font, glyph, em_of(size), (left, 0.0), pixel) {
            return;
        }
    }
    code_point_box(character, em, x, pixel);
}

/// The code point in hexadecimal, two or three digits over as many, in a frame.
fn code_point_box(character: char, em: f64, x: f32, pixel: &mut impl FnMut(i32, i32, f32)) {
    let digits = match character as u32 {
        wide @ 0x10000.. => format!("{wide:06X}"),
        narrow => format!("{narrow:04X}"),
    };
    let (left, right) = (x as i32 + (em * 0.06) as i32, x as i32 + (em * 0.94) as i32);
    let (top, bottom) = ((-em * 0.82) as i32, (em * 0.16) as i32);
    let line = (em / 20.0).round().max(1.0) as i32;
    for y in top..bottom {
        for x in left..right {
            let edge = (x - left).min(right - 1 - x).min(y - top).min(bottom - 1 - y);
            if edge < line {
                pixel(x, y, 1.0);
            }
        }
    }
    let half = digits.len() / 2;
    // Three digits in a row are narrower.
    let small = em * if half == 2 { 0.52 } else { 0.4 };
    for (row, baseline) in [(&digits[..half], -em * 0.38), (&digits[half..], em * 0.06)] {
        let mut at = f64::from(x) + (em - text_width(row, small)) / 2.0;
        for digit in row.chars() {
            let glyph = font().glyph_id(digit);
            draw_glyph(font(), glyph, scale(small), (at as f32, baseline as f32), pixel);
            at += text_width(digit.encode_utf8(&mut [0; 4]), small);
        }
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
        rasterise("Layer", 20.0, |_, _, coverage| covered += usize::from(coverage > 0.5));
        assert!(covered > 100);
    }

    /// Whatever fonts the machine has, a character is seen, stays in its em, and differs from others.
    #[test]
    fn characters_the_font_lacks_are_told_apart() {
        type Pixel<'a> = dyn FnMut(i32, i32, f32) + 'a;
        let picture = |draw: &dyn Fn(&mut Pixel<'_>)| {
            let mut dark = std::collections::BTreeSet::new();
            draw(&mut |x, y, coverage| {
                if coverage > 0.5 {
                    dark.insert((x, y));
                }
            });
            dark
        };
        let shown = |text: &'static str| picture(&|pixel| rasterise(text, 40.0, pixel));
        let boxed = |c: char| picture(&|mut pixel| code_point_box(c, 40.0, 0.0, &mut pixel));
        let texts = ["日", "の", "🙂", "\u{e123}"].map(shown);
        let boxes = ['日', 'の', '🙂', '\u{e123}'].map(boxed);
        for pictures in [&texts, &boxes] {
            for (n, picture) in pictures.iter().enumerate() {
                assert!(picture.len() > 60, "{n}: {}", picture.len());
                assert!(pictures[n + 1..].iter().all(|other| other != picture), "{n}");
            }
        }
        for picture in &boxes {
            assert!(picture.iter().all(|(x, y)| (0..40).contains(x) && (-40..10).contains(y)));
        }
        // The characters after it are not drawn over it.
        assert!(shown("日i").iter().any(|(x, _)| *x >= 40));
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(fit("short", 12.0, 100.0), "short");
        let cut = fit(&"x".repeat(500), 12.0, 100.0);
        assert!(cut.ends_with('…') && text_width(&cut, 12.0) <= 100.0);
        assert_eq!(fit("anything", 12.0, 0.0), "…");
        let measure = |text: &str| text_width(text, 12.0);
        assert_eq!(fit_middle("short", 100.0, measure), "short");
        let cut = fit_middle("a-model-with-a-name (seed 17)", 100.0, measure);
        assert!(cut.starts_with("a-mo") && cut.ends_with(" 17)") && cut.contains('…'), "{cut}");
        assert!(measure(&cut) <= 100.0);
        let lines = two_lines(&"several words ".repeat(40), 12.0, 100.0);
        assert!(
            lines.len() == 2 && lines[0].ends_with("words") && lines[1].ends_with('…'),
            "{lines:?}"
        );
    }
}
