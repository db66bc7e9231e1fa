//! Colours, for light and dark pages, safe for colour-blind readers and ordered in grey.
//!
//! Figures name an [`Ink`], never a colour. Every ink has one RGB value on light paper; the SVG
//! backend turns that value into an attribute plus a CSS class, and the dark value of each class is
//! in [`dark_css`]. So one drawing serves PNG, light and dark pages, and readers without CSS.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::OnceLock;

/// Red, green, blue.
pub(crate) type Rgb = (u8, u8, u8);

/// What a mark is, from which its colour follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Ink {
    /// Labels that must be read.
    Text,
    /// Tick labels, units, remarks.
    Muted,
    /// Frames of panels.
    Axis,
    /// Grid lines.
    Grid,
    /// Chance levels and other references.
    Reference,
    /// The page behind the figure.
    Paper,
    /// The n-th run or quantity; see [`SERIES`].
    Series(u8),
    /// A level of the sequential map, `0..SEQUENTIAL_LEVELS`.
    Sequential(u8),
    /// A level of the diverging map, `0..DIVERGING_LEVELS`; the middle one is zero.
    Diverging(u8),
    /// The n-th band of a flow; see [`FLOW`].
    Flow(u8),
    /// A cell without a value.
    Missing,
}

/// Steps of the sequential map.
pub(crate) const SEQUENTIAL_LEVELS: u8 = 48;
/// Steps of the diverging map, odd so that zero has a step of its own.
pub(crate) const DIVERGING_LEVELS: u8 = 33;

/// Okabe-Ito, darkened on light paper and lightened on dark so that each mark keeps a contrast of
/// at least 3:1; marks differ in shape too, for grey. (light, dark) each.
const SERIES: [(Rgb, Rgb); 8] = [
    ((0x00, 0x6b, 0xac), (0x4d, 0xa8, 0xe6)), // blue
    ((0xd0, 0x55, 0x00), (0xff, 0x8c, 0x42)), // vermilion
    ((0x00, 0x89, 0x63), (0x2c, 0xc0, 0x96)), // bluish green
    ((0xb3, 0x57, 0x8b), (0xe5, 0x9b, 0xc6)), // reddish purple
    ((0xa8, 0x71, 0x00), (0xf0, 0xb4, 0x2d)), // orange
    ((0x2f, 0x8a, 0xc2), (0x94, 0xd3, 0xfa)), // sky blue
    ((0x59, 0x5f, 0x69), (0xb3, 0xba, 0xc4)), // grey
    ((0x7d, 0x78, 0x0b), (0xf0, 0xe4, 0x42)), // yellow
];

/// Bands that lie beside and across each other, dark and light in turn so that neighbours differ in grey:
/// blue, yellow, vermilion, sky blue, green, pink. (light, dark) each.
const FLOW: [(Rgb, Rgb); 6] = [
    ((0x00, 0x4c, 0x7e), (0x2b, 0x78, 0xae)),
    ((0xd4, 0xa0, 0x13), (0xf3, 0xd0, 0x60)),
    ((0x8f, 0x35, 0x00), (0xb8, 0x55, 0x1a)),
    ((0x64, 0xaa, 0xdb), (0xa6, 0xd8, 0xf7)),
    ((0x00, 0x54, 0x3d), (0x12, 0x80, 0x62)),
    ((0xd7, 0x8c, 0xb6), (0xf2, 0xc0, 0xdc)),
];

/// Number of series colours before they repeat.
pub(crate) const SERIES_COLOURS: usize = SERIES.len();

/// viridis at eleven equal steps: its luminance rises throughout, so it prints in grey.
const SEQUENTIAL: [Rgb; 11] = [
    (0x44, 0x01, 0x54),
    (0x48, 0x24, 0x75),
    (0x41, 0x44, 0x87),
    (0x35, 0x5f, 0x8d),
    (0x2a, 0x78, 0x8e),
    (0x21, 0x91, 0x8c),
    (0x22, 0xa8, 0x84),
    (0x44, 0xbf, 0x70),
    (0x7a, 0xd1, 0x51),
    (0xbd, 0xdf, 0x26),
    (0xfd, 0xe7, 0x25),
];

/// Blue to orange through near-white. The blue end is much darker than the orange end, so that the
/// sign can be told in grey as well.
const DIVERGING_LIGHT: [Rgb; 9] = [
    (0x08, 0x2c, 0x63),
    (0x1f, 0x5c, 0xa6),
    (0x5c, 0x9a, 0xcd),
    (0xb9, 0xd6, 0xea),
    (0xf6, 0xf6, 0xf5),
    (0xfd, 0xdc, 0xb3),
    (0xf7, 0xb2, 0x5f),
    (0xe2, 0x86, 0x1d),
    (0xbf, 0x60, 0x0a),
];

/// The same through near-black: zero keeps to the dark page, large differences shine.
const DIVERGING_DARK: [Rgb; 9] = [
    (0x7d, 0xc0, 0xff),
    (0x4a, 0x92, 0xdb),
    (0x2f, 0x66, 0xa3),
    (0x21, 0x3f, 0x63),
    (0x22, 0x27, 0x2e),
    (0x5f, 0x3c, 0x16),
    (0xa0, 0x60, 0x14),
    (0xe0, 0x92, 0x2f),
    (0xff, 0xcf, 0x8f),
];

impl Ink {
    /// The ink of the n-th run; colours repeat after [`SERIES_COLOURS`].
    pub(crate) fn series(index: usize) -> Self {
        Ink::Series((index % SERIES_COLOURS) as u8)
    }

    /// The colour on light paper.
    pub(crate) fn light(self) -> Rgb {
        match self {
            Ink::Text => (0x1f, 0x23, 0x28),
            Ink::Muted => (0x57, 0x60, 0x6a),
            Ink::Axis => (0x8c, 0x95, 0x9f),
            Ink::Grid => (0xe2, 0xe6, 0xea),
            Ink::Reference => (0x4a, 0x51, 0x5a),
            Ink::Paper => (0xff, 0xff, 0xff),
            Ink::Missing => (0xd3, 0xd7, 0xdc),
            Ink::Series(n) => SERIES[n as usize % SERIES_COLOURS].0,
            Ink::Flow(n) => FLOW[n as usize % FLOW.len()].0,
            Ink::Sequential(level) => blend(&SEQUENTIAL, level, SEQUENTIAL_LEVELS),
            Ink::Diverging(level) => blend(&DIVERGING_LIGHT, level, DIVERGING_LEVELS),
        }
    }

    /// The colour on a dark page.
    pub(crate) fn dark(self) -> Rgb {
        match self {
            Ink::Text => (0xe6, 0xed, 0xf3),
            Ink::Muted => (0xa3, 0xab, 0xb5),
            Ink::Axis => (0x70, 0x78, 0x82),
            Ink::Grid => (0x2b, 0x31, 0x39),
            Ink::Reference => (0xc3, 0xc9, 0xd1),
            Ink::Paper => (0x0f, 0x13, 0x18),
            Ink::Missing => (0x45, 0x4b, 0x54),
            Ink::Series(n) => SERIES[n as usize % SERIES_COLOURS].1,
            Ink::Flow(n) => FLOW[n as usize % FLOW.len()].1,
            Ink::Sequential(_) => self.light(),
            Ink::Diverging(level) => blend(&DIVERGING_DARK, level, DIVERGING_LEVELS),
        }
    }

    /// The CSS class, for inks whose colour differs on a dark page.
    fn class(self) -> Option<String> {
        Some(match self {
            Ink::Text => "t".into(),
            Ink::Muted => "m".into(),
            Ink::Axis => "a".into(),
            Ink::Grid => "g".into(),
            Ink::Reference => "r".into(),
            Ink::Paper => "p".into(),
            Ink::Missing => "n".into(),
            Ink::Series(n) => format!("s{n}"),
            Ink::Flow(n) => format!("w{n}"),
            Ink::Diverging(level) => format!("d{level}"),
            Ink::Sequential(_) => return None,
        })
    }

    fn adaptive() -> impl Iterator<Item = Ink> {
        [Ink::Text, Ink::Muted, Ink::Axis, Ink::Grid, Ink::Reference, Ink::Paper, Ink::Missing]
            .into_iter()
            .chain((0..SERIES_COLOURS as u8).map(Ink::Series))
            .chain((0..FLOW.len() as u8).map(Ink::Flow))
            .chain((0..DIVERGING_LEVELS).map(Ink::Diverging))
    }
}

/// The class suffix of a light colour, if it has one: `f-` (fill) or `s-` (stroke) goes before it.
pub(crate) fn class_of(rgb: Rgb) -> Option<&'static str> {
    static CLASSES: OnceLock<HashMap<Rgb, String>> = OnceLock::new();
    CLASSES
        .get_or_init(|| {
            Ink::adaptive().filter_map(|ink| Some((ink.light(), ink.class()?))).collect()
        })
        .get(&rgb)
        .map(String::as_str)
}

/// The CSS rules that recolour figures on a dark page, without the media query around them.
pub(crate) fn dark_css() -> String {
    let mut css = String::new();
    for ink in Ink::adaptive() {
        let Some(class) = ink.class() else { continue };
        let (r, g, b) = ink.dark();
        // Writing to a String cannot fail.
        let _ = write!(
            css,
            ".f-{class}{{fill:#{r:02x}{g:02x}{b:02x}}}.s-{class}{{stroke:#{r:02x}{g:02x}{b:02x}}}"
        );
    }
    css
}

/// The colour at `level` of `levels` along equally spaced stops.
fn blend(stops: &[Rgb], level: u8, levels: u8) -> Rgb {
    let last = stops.len() - 1;
    let at = f64::from(level.min(levels - 1)) / f64::from(levels - 1) * last as f64;
    let left = (at.floor() as usize).min(last - 1);
    let mix = |a: u8, b: u8| {
        (f64::from(a) + (f64::from(b) - f64::from(a)) * (at - left as f64)).round() as u8
    };
    let (a, b) = (stops[left], stops[left + 1]);
    (mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

/// Relative luminance as WCAG defines it.
#[cfg(test)]
pub(crate) fn luminance((r, g, b): Rgb) -> f64 {
    let linear = |c: u8| {
        let c = f64::from(c) / 255.0;
        if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
}

/// Contrast of two colours as WCAG defines it, 1 to 21.
#[cfg(test)]
pub(crate) fn contrast(a: Rgb, b: Rgb) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_adaptive_colour_has_one_class() {
        let mut seen = HashMap::new();
        for ink in Ink::adaptive().chain((0..SEQUENTIAL_LEVELS).map(Ink::Sequential)) {
            assert_eq!(seen.insert(ink.light(), ink), None, "{ink:?} shares its colour");
        }
        assert_eq!(class_of(Ink::Text.light()), Some("t"));
        assert_eq!(class_of(Ink::Sequential(3).light()), None);
    }

    #[test]
    fn text_and_marks_stand_out_on_both_papers() {
        let (light, dark) = (Ink::Paper.light(), Ink::Paper.dark());
        for ink in [Ink::Text, Ink::Muted, Ink::Reference] {
            assert!(contrast(ink.light(), light) >= 4.5, "{ink:?} on light");
            assert!(contrast(ink.dark(), dark) >= 4.5, "{ink:?} on dark");
        }
        for ink in (0..SERIES_COLOURS).map(Ink::series) {
            assert!(contrast(ink.light(), light) >= 3.0, "{ink:?} on light");
            assert!(contrast(ink.dark(), dark) >= 3.0, "{ink:?} on dark");
        }
    }

    #[test]
    fn neighbouring_bands_differ_in_grey() {
        let inks: Vec<Ink> = (0..FLOW.len() as u8).map(Ink::Flow).collect();
        for colour in [Ink::light, Ink::dark] {
            for pair in inks.windows(2) {
                assert!(contrast(colour(pair[0]), colour(pair[1])) >= 2.5, "{pair:?}");
            }
            for ink in &inks {
                assert!(contrast(colour(*ink), colour(Ink::Paper)) >= 2.3, "{ink:?} on paper");
            }
        }
    }

    #[test]
    fn maps_are_ordered_in_grey() {
        let sequential: Vec<f64> =
            (0..SEQUENTIAL_LEVELS).map(|l| luminance(Ink::Sequential(l).light())).collect();
        assert!(sequential.windows(2).all(|pair| pair[0] < pair[1]));
        // The two ends of the diverging map are far apart in grey.
        let low = luminance(Ink::Diverging(0).light());
        let high = luminance(Ink::Diverging(DIVERGING_LEVELS - 1).light());
        assert!(high > 4.0 * low, "{low} {high}");
    }
}
