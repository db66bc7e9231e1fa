//! Where figures are drawn: lengths in CSS pixels, colours as [`Ink`], any output behind it.

mod backend;
mod font;
mod heatmap;
mod legend;
mod panel;
mod scale;
mod svg;
mod system;

use std::cell::RefCell;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::{
    BitMapBackend, Circle, Color, DrawingArea, FontTransform, IntoDrawingArea, IntoFont,
    PathElement, Polygon, RGBColor, Rectangle, Text,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontDesc, FontFamily, FontStyle};
use plotters_backend::DrawingBackend;

use crate::palette::Ink;
use backend::Backend;
pub(crate) use font::{bold_width, fit, fit_middle, text_width, two_lines};
pub(crate) use heatmap::{Colours, Heatmap, cell_height};
pub(crate) use legend::{Key, legend, legend_in, run_keys};
pub(crate) use panel::{Panel, Place, TITLE, lay_out};
pub(crate) use scale::Axis;
pub(crate) use svg::escape;
use svg::{SvgWriter, UNITS};

/// Font size of labels, CSS pixels; nothing is smaller than [`SMALL`].
pub(crate) const LABEL: f64 = 12.5;
/// Font size of tick labels and remarks.
pub(crate) const SMALL: f64 = 12.0;

/// A figure being drawn. Lengths and positions are CSS pixels from the top left corner.
pub(crate) struct Canvas<'a> {
    area: DrawingArea<Backend<'a>, Shift>,
    /// Backend units per CSS pixel.
    scale: f64,
    /// Width of the figure.
    pub(crate) width: f64,
    /// The first failure; drawing goes on so that figures read without a `?` per line.
    failure: RefCell<Option<String>>,
}

/// Where the anchor of a text lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Align {
    Left,
    Centre,
    Right,
}

/// Patterns of broken lines: references that stand beside each other differ in them, so that they can be
/// told apart in grey.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Dash {
    Short,
    Dots,
    Long,
}

impl Dash {
    /// Length of a dash and of the gap after it, CSS pixels.
    fn lengths(self) -> (f64, f64) {
        match self {
            Dash::Short => (5.0, 3.5),
            Dash::Dots => (1.8, 2.6),
            Dash::Long => (11.0, 4.0),
        }
    }
}

/// Shapes of data points: each run has one, so that runs can be told apart in grey.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    TriangleDown,
}

impl Marker {
    /// The shape of the n-th run. Five shapes and eight colours make forty pairs.
    pub(crate) fn series(index: usize) -> Self {
        use Marker::*;
        [Circle, Square, Triangle, Diamond, TriangleDown][index % 5]
    }
}

impl Canvas<'_> {
    fn to_units(&self, (x, y): (f64, f64)) -> (i32, i32) {
        ((x * self.scale).round() as i32, (y * self.scale).round() as i32)
    }

    fn stroke(&self, width: f64) -> u32 {
        (width * self.scale).round().max(1.0) as u32
    }

    fn keep<E: std::fmt::Display>(&self, result: Result<(), E>) {
        if let Err(error) = result {
            self.failure.borrow_mut().get_or_insert_with(|| error.to_string());
        }
    }

    /// A filled rectangle with sharp edges.
    pub(crate) fn rect(&self, x: f64, y: f64, w: f64, h: f64, ink: Ink) {
        let corners = [self.to_units((x, y)), self.to_units((x + w, y + h))];
        self.keep(self.area.draw(&Rectangle::new(corners, colour(ink).filled())));
    }

    /// The outline of a rectangle.
    pub(crate) fn frame(&self, x: f64, y: f64, w: f64, h: f64, ink: Ink) {
        let corners = [self.to_units((x, y)), self.to_units((x + w, y + h))];
        let style = colour(ink).stroke_width(self.stroke(1.0));
        self.keep(self.area.draw(&Rectangle::new(corners, style)));
    }

    /// A line through points; one without two finite points in a row draws nothing.
    pub(crate) fn line(&self, points: &[(f64, f64)], ink: Ink, width: f64) {
        let style = colour(ink).stroke_width(self.stroke(width));
        for piece in points.split(|(x, y)| !(x.is_finite() && y.is_finite())) {
            if piece.len() >= 2 {
                let piece: Vec<_> = piece.iter().map(|&point| self.to_units(point)).collect();
                self.keep(self.area.draw(&PathElement::new(piece, style)));
            }
        }
    }

    /// A dashed line through points.
    pub(crate) fn dashed(&self, points: &[(f64, f64)], ink: Ink, width: f64) {
        self.broken(points, Dash::Short, ink, width);
    }

    /// A line through points, broken by a pattern.
    pub(crate) fn broken(&self, points: &[(f64, f64)], pattern: Dash, ink: Ink, width: f64) {
        let (dash, gap) = pattern.lengths();
        // Distance left in the current dash (or gap), carried over corners.
        let (mut on, mut left) = (true, dash);
        for pair in points.windows(2) {
            let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
            let length = (x1 - x0).hypot(y1 - y0);
            if !length.is_finite() || length == 0.0 {
                continue;
            }
            let at = |d: f64| (x0 + (x1 - x0) * d / length, y0 + (y1 - y0) * d / length);
            let mut done = 0.0;
            while done < length {
                let step = left.min(length - done);
                if on {
                    self.line(&[at(done), at(done + step)], ink, width);
                }
                done += step;
                left -= step;
                if left <= 1e-9 {
                    on = !on;
                    left = if on { dash } else { gap };
                }
            }
        }
    }

    /// A filled polygon; one with a point that is no number draws nothing.
    pub(crate) fn polygon(&self, corners: &[(f64, f64)], ink: Ink) {
        if corners.iter().all(|(x, y)| x.is_finite() && y.is_finite()) {
            let corners: Vec<_> = corners.iter().map(|&corner| self.to_units(corner)).collect();
            self.keep(self.area.draw(&Polygon::new(corners, colour(ink))));
        }
    }

    /// A data point, `size` pixels across.
    pub(crate) fn marker(&self, x: f64, y: f64, size: f64, marker: Marker, ink: Ink) {
        if !(x.is_finite() && y.is_finite()) {
            return;
        }
        let r = size / 2.0;
        let corners: &[(f64, f64)] = match marker {
            Marker::Circle => {
                let circle = Circle::new(
                    self.to_units((x, y)),
                    (r * self.scale).round() as i32,
                    colour(ink).filled(),
                );
                self.keep(self.area.draw(&circle));
                return;
            }
            Marker::Square => &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            Marker::Triangle => &[(0.0, -1.15), (1.1, 0.85), (-1.1, 0.85)],
            Marker::TriangleDown => &[(0.0, 1.15), (1.1, -0.85), (-1.1, -0.85)],
            Marker::Diamond => &[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)],
        };
        let corners: Vec<_> =
            corners.iter().map(|(dx, dy)| self.to_units((x + dx * r, y + dy * r))).collect();
        self.keep(self.area.draw(&Polygon::new(corners, colour(ink))));
    }

    /// Text with its anchor on the baseline.
    pub(crate) fn text(&self, x: f64, y: f64, text: &str, size: f64, ink: Ink, align: Align) {
        self.write((x, y), text, size, ink, align, FontStyle::Normal);
    }

    /// Bold text from the left.
    pub(crate) fn strong(&self, x: f64, y: f64, text: &str, size: f64, ink: Ink) {
        self.write((x, y), text, size, ink, Align::Left, FontStyle::Bold);
    }

    fn write(
        &self,
        at: (f64, f64),
        text: &str,
        size: f64,
        ink: Ink,
        align: Align,
        style: FontStyle,
    ) {
        let h_pos = match align {
            Align::Left => HPos::Left,
            Align::Centre => HPos::Center,
            Align::Right => HPos::Right,
        };
        let font = FontDesc::new(FontFamily::SansSerif, size * self.scale, style)
            .transform(FontTransform::None)
            .into_font()
            .color(&colour(ink))
            .pos(Pos::new(h_pos, VPos::Bottom));
        self.keep(self.area.draw(&Text::new(text, self.to_units(at), font)));
    }

    fn done(self) -> Result<(), String> {
        match self.failure.into_inner() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}

fn colour(ink: Ink) -> RGBColor {
    let (r, g, b) = ink.light();
    RGBColor(r, g, b)
}

/// What draws a figure: returns the height it used.
pub(crate) trait Draw: Fn(&Canvas<'_>) -> f64 {}
impl<F: Fn(&Canvas<'_>) -> f64> Draw for F {}

fn on<'a>(backend: Backend<'a>, scale: f64, width: f64, margin: f64) -> Canvas<'a> {
    let margin = (margin * scale) as i32;
    let area = backend.into_drawing_area().margin(margin, margin, margin, margin);
    Canvas { area, scale, width, failure: RefCell::new(None) }
}

/// Air around a figure that stands by itself as a file, CSS pixels.
const MARGIN: f64 = 10.0;

/// Draws as SVG for a page, `width` CSS pixels wide.
pub(crate) fn to_svg(width: f64, draw: impl Draw) -> Result<String, String> {
    svg(width, 0.0, None, draw)
}

/// Draws as an SVG file that stands by itself; `style` goes into its style element.
pub(crate) fn to_svg_file(width: f64, style: &str, draw: impl Draw) -> Result<String, String> {
    svg(width, MARGIN, Some(style), draw)
}

fn svg(width: f64, margin: f64, style: Option<&str>, draw: impl Draw) -> Result<String, String> {
    let mut writer = SvgWriter::default();
    let canvas = on(Backend::Svg(&mut writer), UNITS, width, margin);
    let height = draw(&canvas);
    canvas.done()?;
    Ok(writer.finish(width + 2.0 * margin, height + 2.0 * margin, style))
}

/// PNG pixels per CSS pixel.
pub(crate) const PNG_SCALE: usize = 2;
/// Drawn this much larger and averaged: plotters' bitmap polygons have hard edges.
const OVERSAMPLING: usize = 2;

/// Draws as RGB pixels on light paper: (width, height, bytes).
pub(crate) fn to_pixels(width: f64, draw: impl Draw) -> Result<(u32, u32, Vec<u8>), String> {
    const FINE: usize = PNG_SCALE * OVERSAMPLING;
    let height = draw(&on(Backend::Measure, FINE as f64, width, MARGIN));
    let size = |length: f64| (length + 2.0 * MARGIN).ceil() as usize * PNG_SCALE;
    let (w, h) = (size(width), size(height));
    let (fine_w, fine_h) = (w * OVERSAMPLING, h * OVERSAMPLING);
    let mut fine = vec![0xff; fine_w * fine_h * 3];
    {
        let bitmap = BitMapBackend::with_buffer(&mut fine, (fine_w as u32, fine_h as u32));
        let canvas = on(Backend::Bitmap(bitmap), FINE as f64, width, MARGIN);
        draw(&canvas);
        canvas.done()?;
    }
    Ok((w as u32, h as u32, halved(&fine, w)))
}

/// Averages two by two RGB pixels; `w` is the width of the result. [`OVERSAMPLING`] is 2.
fn halved(fine: &[u8], w: usize) -> Vec<u8> {
    const { assert!(OVERSAMPLING == 2) };
    let mut pixels = vec![0u8; fine.len() / 4];
    for (rows, line) in fine.chunks_exact(w * 12).zip(pixels.chunks_exact_mut(w * 3)) {
        let (upper, lower) = rows.split_at(w * 6);
        let pairs = upper.chunks_exact(6).zip(lower.chunks_exact(6));
        for (pixel, (a, b)) in line.chunks_exact_mut(3).zip(pairs) {
            for channel in 0..3 {
                let sum = [a[channel], a[channel + 3], b[channel], b[channel + 3]].map(u16::from);
                pixel[channel] = ((sum[0] + sum[1] + sum[2] + sum[3]) / 4) as u8;
            }
        }
    }
    pixels
}

/// Draws as a PNG file.
pub(crate) fn to_png(path: &Path, width: f64, draw: impl Draw) -> Result<(), String> {
    let (w, h, pixels) = to_pixels(width, draw)?;
    let mut file = BitMapBackend::new(path, (w, h));
    file.blit_bitmap((0, 0), (w, h), &pixels).map_err(|error| error.to_string())?;
    file.present().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_pixels_become_their_mean() {
        // Two pixels wide, two rows: eight pixels of a 4 x 2 picture become two.
        let upper = [10, 0, 0, 30, 4, 0, 255, 255, 255, 255, 255, 255];
        let lower = [20, 0, 8, 20, 0, 0, 255, 255, 255, 255, 0, 255];
        let fine: Vec<u8> = upper.into_iter().chain(lower).collect();
        assert_eq!(halved(&fine, 2), [20, 1, 2, 255, 191, 255]);
    }
}
