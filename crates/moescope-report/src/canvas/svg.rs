//! SVG as plotters' shapes arrive: compact, themeable, with sub-pixel positions.
//!
//! plotters-svg writes every heatmap cell as an element of its own (61 layers of 256 experts are 2 MB),
//! whole pixels only, and no classes. Here neighbouring rectangles of one colour share a path, positions
//! are tenths of a pixel, and every adaptive colour carries a class (see [`crate::palette`]).

use std::fmt::Write as _;

use plotters_backend::text_anchor::HPos;
use plotters_backend::{BackendColor, BackendCoord, FontTransform};

use crate::palette::class_of;
use crate::sanitize::sanitize;

/// Backend units per SVG pixel: plotters' coordinates are whole numbers.
pub(crate) const UNITS: f64 = 10.0;

/// Collects the elements of one figure.
#[derive(Default)]
pub(crate) struct SvgWriter {
    body: String,
    /// Rectangles of one colour not yet written, and the path that draws them.
    pending: Option<(BackendColor, String)>,
}

impl SvgWriter {
    /// The finished document, `width` x `height` pixels. `style` goes into a style element.
    pub(crate) fn finish(mut self, width: f64, height: f64, style: Option<&str>) -> String {
        self.flush();
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" \
             viewBox=\"0 0 {w} {h}\" font-family=\"system-ui, sans-serif\">\n",
            w = width.ceil(),
            h = height.ceil(),
        );
        if let Some(style) = style {
            let _ = writeln!(svg, "<style>{style}</style>");
        }
        svg.push_str(&self.body);
        svg.push_str("</svg>\n");
        svg
    }

    pub(crate) fn rect(&mut self, (x0, y0): BackendCoord, (x1, y1): BackendCoord, c: BackendColor) {
        if self.pending.as_ref().is_none_or(|(colour, _)| !same(*colour, c)) {
            self.flush();
            self.pending = Some((c, String::new()));
        }
        if let Some((_, path)) = &mut self.pending {
            let (w, h) = (num(x1 - x0), num(y1 - y0));
            let _ = write!(path, "M{} {}h{w}v{h}h-{w}z", num(x0), num(y0));
        }
    }

    pub(crate) fn frame(&mut self, a: BackendCoord, b: BackendCoord, c: BackendColor, stroke: u32) {
        self.flush();
        let _ = writeln!(
            self.body,
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\"{}/>",
            num(a.0),
            num(a.1),
            num(b.0 - a.0),
            num(b.1 - a.1),
            stroke_of(c, stroke),
        );
    }

    pub(crate) fn polyline(
        &mut self,
        points: impl IntoIterator<Item = BackendCoord>,
        c: BackendColor,
        stroke: u32,
    ) {
        self.flush();
        let _ = writeln!(
            self.body,
            "<path fill=\"none\" stroke-linejoin=\"round\"{} d=\"{}\"/>",
            stroke_of(c, stroke),
            path(points)
        );
    }

    pub(crate) fn polygon(
        &mut self,
        points: impl IntoIterator<Item = BackendCoord>,
        c: BackendColor,
    ) {
        self.flush();
        let _ = writeln!(self.body, "<path{} d=\"{}z\"/>", fill_of(c), path(points));
    }

    pub(crate) fn circle(&mut self, centre: BackendCoord, radius: u32, c: BackendColor) {
        self.flush();
        let _ = writeln!(
            self.body,
            "<circle cx=\"{}\" cy=\"{}\" r=\"{}\"{}/>",
            num(centre.0),
            num(centre.1),
            num(radius as i32),
            fill_of(c)
        );
    }

    /// `at` is the anchor on the baseline.
    pub(crate) fn text(&mut self, text: &str, at: BackendCoord, style: TextAttributes) {
        self.flush();
        let anchor = match style.anchor {
            HPos::Left => "",
            HPos::Center => " text-anchor=\"middle\"",
            HPos::Right => " text-anchor=\"end\"",
        };
        let (x, y) = (num(at.0), num(at.1));
        let turn = match style.transform {
            FontTransform::None => String::new(),
            FontTransform::Rotate90 => format!(" transform=\"rotate(90 {x} {y})\""),
            FontTransform::Rotate180 => format!(" transform=\"rotate(180 {x} {y})\""),
            FontTransform::Rotate270 => format!(" transform=\"rotate(270 {x} {y})\""),
        };
        let weight = if style.strong { " font-weight=\"600\"" } else { "" };
        let _ = writeln!(
            self.body,
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{}\"{weight}{anchor}{turn}{}>{}</text>",
            num(style.em.round() as i32),
            fill_of(style.colour),
            escape(text),
        );
    }

    fn flush(&mut self) {
        if let Some((colour, path)) = self.pending.take() {
            let _ = writeln!(
                self.body,
                "<path shape-rendering=\"crispEdges\"{} d=\"{path}\"/>",
                fill_of(colour)
            );
        }
    }
}

/// How a text is set.
pub(crate) struct TextAttributes {
    pub(crate) em: f64,
    pub(crate) colour: BackendColor,
    pub(crate) strong: bool,
    pub(crate) anchor: HPos,
    pub(crate) transform: FontTransform,
}

fn same(a: BackendColor, b: BackendColor) -> bool {
    a.rgb == b.rgb && a.alpha == b.alpha
}

/// Backend units as pixels with at most one decimal.
fn num(units: i32) -> String {
    let (whole, tenth) = (units / UNITS as i32, (units % UNITS as i32).abs());
    match tenth {
        0 => whole.to_string(),
        _ => format!("{}{}.{tenth}", if units < 0 { "-" } else { "" }, whole.abs()),
    }
}

fn path(points: impl IntoIterator<Item = BackendCoord>) -> String {
    let mut d = String::new();
    for (index, (x, y)) in points.into_iter().enumerate() {
        let _ = write!(d, "{}{} {}", if index == 0 { 'M' } else { 'L' }, num(x), num(y));
    }
    d
}

fn paint(colour: BackendColor, property: &str, prefix: char) -> String {
    let (r, g, b) = colour.rgb;
    let mut attributes = format!(" {property}=\"#{r:02x}{g:02x}{b:02x}\"");
    if let Some(class) = class_of(colour.rgb) {
        let _ = write!(attributes, " class=\"{prefix}-{class}\"");
    }
    if colour.alpha < 1.0 {
        let _ = write!(attributes, " opacity=\"{:.2}\"", colour.alpha);
    }
    attributes
}

fn fill_of(colour: BackendColor) -> String {
    paint(colour, "fill", 'f')
}

fn stroke_of(colour: BackendColor, width: u32) -> String {
    format!("{} stroke-width=\"{}\"", paint(colour, "stroke", 's'), num(width as i32))
}

/// Text as XML character data: controls made visible, markup escaped.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in sanitize(text).chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
