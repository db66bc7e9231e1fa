//! The plotters backends a figure can be drawn on.

use plotters::prelude::BitMapBackend;
use plotters_backend::text_anchor::HPos;
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
    FontStyle,
};

use super::font::rasterise;
use super::svg::{SvgWriter, TextAttributes};

/// One of the outputs, so that a figure's `draw` is an ordinary function and fits in a `const` slice.
///
/// Text convention, for all of them: the size of a style is its em and the position is the anchor on
/// the **baseline** (plotters' own text placement differs between its backends).
pub(crate) enum Backend<'a> {
    /// Nothing is drawn: for a figure to find out how high it gets.
    Measure,
    /// SVG in memory.
    Svg(&'a mut SvgWriter),
    /// Pixels in memory.
    Bitmap(BitMapBackend<'a>),
}

/// A failure of a backend, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BackendError(String);

type Drawn = Result<(), DrawingErrorKind<BackendError>>;

/// plotters' error types differ by backend; ours is one.
fn unify<E: std::error::Error + Send + Sync>(result: Result<(), DrawingErrorKind<E>>) -> Drawn {
    result.map_err(|error| DrawingErrorKind::DrawingError(BackendError(error.to_string())))
}

impl DrawingBackend for Backend<'_> {
    type ErrorType = BackendError;

    fn get_size(&self) -> (u32, u32) {
        match self {
            // Never a limit: the figure says how large it is.
            Backend::Measure | Backend::Svg(_) => (1 << 24, 1 << 24),
            Backend::Bitmap(bitmap) => bitmap.get_size(),
        }
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        match self {
            Backend::Measure | Backend::Svg(_) => Ok(()),
            Backend::Bitmap(bitmap) => unify(bitmap.present()),
        }
    }

    fn draw_pixel(&mut self, at: BackendCoord, colour: BackendColor) -> Drawn {
        match self {
            Backend::Measure => Ok(()),
            Backend::Svg(svg) => {
                svg.rect(at, (at.0 + 1, at.1 + 1), colour);
                Ok(())
            }
            Backend::Bitmap(bitmap) => unify(bitmap.draw_pixel(at, colour)),
        }
    }

    fn draw_line<S: BackendStyle>(&mut self, a: BackendCoord, b: BackendCoord, s: &S) -> Drawn {
        self.draw_path([a, b], s)
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        a: BackendCoord,
        b: BackendCoord,
        style: &S,
        fill: bool,
    ) -> Drawn {
        match self {
            Backend::Measure => {}
            Backend::Svg(svg) if fill => svg.rect(a, b, style.color()),
            Backend::Svg(svg) => svg.frame(a, b, style.color(), style.stroke_width()),
            Backend::Bitmap(bitmap) if fill => return unify(bitmap.draw_rect(a, b, style, true)),
            // The bitmap's own outline is one pixel wide whatever the style says.
            Backend::Bitmap(_) => {
                return self.draw_path([a, (b.0, a.1), b, (a.0, b.1), a], style);
            }
        }
        Ok(())
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Drawn {
        match self {
            Backend::Measure => Ok(()),
            Backend::Svg(svg) => {
                svg.polyline(path, style.color(), style.stroke_width());
                Ok(())
            }
            Backend::Bitmap(bitmap) => {
                // Segment by segment: plotters joins a thick path with mitres, which shoot far out at
                // sharp angles.
                let width = f64::from(style.stroke_width().max(1));
                let points: Vec<BackendCoord> = path.into_iter().collect();
                for pair in points.windows(2) {
                    let (a, b) = (pair[0], pair[1]);
                    if a.0 == b.0 || a.1 == b.1 {
                        let half = (width / 2.0).floor() as i32;
                        let other = width as i32 - half;
                        let low = (a.0.min(b.0) - half, a.1.min(b.1) - half);
                        let high = (a.0.max(b.0) + other, a.1.max(b.1) + other);
                        unify(bitmap.draw_rect(low, high, &style.color(), true))?;
                    } else {
                        unify(bitmap.fill_polygon(ribbon(a, b, width), &style.color()))?;
                        let joint = (width / 2.0).round() as u32;
                        unify(bitmap.draw_circle(b, joint, &style.color(), true))?;
                    }
                }
                Ok(())
            }
        }
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        centre: BackendCoord,
        radius: u32,
        style: &S,
        fill: bool,
    ) -> Drawn {
        match self {
            Backend::Measure => Ok(()),
            Backend::Svg(svg) => {
                svg.circle(centre, radius, style.color());
                Ok(())
            }
            Backend::Bitmap(bitmap) => unify(bitmap.draw_circle(centre, radius, style, fill)),
        }
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        points: I,
        style: &S,
    ) -> Drawn {
        match self {
            Backend::Measure => Ok(()),
            Backend::Svg(svg) => {
                svg.polygon(points, style.color());
                Ok(())
            }
            Backend::Bitmap(bitmap) => unify(bitmap.fill_polygon(points, style)),
        }
    }

    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, at: BackendCoord) -> Drawn {
        let strong = matches!(style.style(), FontStyle::Bold);
        match self {
            Backend::Measure => Ok(()),
            Backend::Svg(svg) => {
                let attributes = TextAttributes {
                    em: style.size(),
                    colour: style.color(),
                    strong,
                    anchor: style.anchor().h_pos,
                    transform: style.transform(),
                };
                svg.text(text, at, attributes);
                Ok(())
            }
            Backend::Bitmap(bitmap) => {
                let text = crate::sanitize(text);
                let width = super::font::text_width(&text, style.size());
                let shift = match style.anchor().h_pos {
                    HPos::Left => 0,
                    HPos::Center => (-width / 2.0) as i32,
                    HPos::Right => -width as i32,
                };
                let (turn, colour) = (style.transform(), style.color());
                let mut result = Ok(());
                let mut put = |dx: i32| {
                    rasterise(&text, style.size(), |x, y, coverage| {
                        let (x, y) = turn.transform(x + shift + dx, y);
                        let alpha = colour.alpha * f64::from(coverage);
                        let pixel = BackendColor { alpha, rgb: colour.rgb };
                        if result.is_ok() {
                            result = unify(bitmap.draw_pixel((at.0 + x, at.1 + y), pixel));
                        }
                    });
                };
                put(0);
                if strong {
                    // One weight is embedded; a second pass beside the first makes it bold.
                    put((style.size() / 28.0).round().max(1.0) as i32);
                }
                result
            }
        }
    }
}

/// A straight line of some width as a polygon.
fn ribbon(a: BackendCoord, b: BackendCoord, width: f64) -> [BackendCoord; 4] {
    let (dx, dy) = (f64::from(b.0 - a.0), f64::from(b.1 - a.1));
    let length = dx.hypot(dy).max(f64::EPSILON);
    let (nx, ny) = (-dy / length * width / 2.0, dx / length * width / 2.0);
    let at = |p: BackendCoord, s: f64| {
        ((f64::from(p.0) + s * nx).round() as i32, (f64::from(p.1) + s * ny).round() as i32)
    };
    [at(a, 1.0), at(b, 1.0), at(b, -1.0), at(a, -1.0)]
}
