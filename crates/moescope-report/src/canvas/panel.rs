//! A framed plot with axes, and how several share a figure.

use super::font::{bold_width, fit_by};
use super::scale::{Axis, Scale};
use super::{Align, Canvas, LABEL, SMALL, fit, text_width};
use crate::palette::Ink;

/// The plotting area of one panel; marks are placed through its scales.
pub(crate) struct Panel {
    pub(crate) x: Scale,
    pub(crate) y: Scale,
}

/// A rectangle on the canvas.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) w: f64,
    pub(crate) h: f64,
}

/// Height of a panel's title line.
pub(crate) const TITLE: f64 = 30.0;
/// Height of tick labels and axis title below a panel.
const FOOT: f64 = 38.0;

impl Panel {
    /// Draws title, grid, tick labels and frame into `place` (which holds all of them).
    ///
    /// The name of the y axis stands in the title line, not turned along the axis: it is read first
    /// and costs no width on a phone.
    pub(crate) fn draw(
        canvas: &Canvas<'_>,
        place: Place,
        title: &str,
        x_axis: &Axis,
        y_axis: &Axis,
    ) -> Panel {
        let unit = &y_axis.title;
        let title = fit_by(title, place.w, |text| bold_width(text, LABEL));
        canvas.strong(place.x, place.y + 13.0, &title, LABEL, Ink::Text);
        let used = bold_width(&title, LABEL) + 6.0;
        let unit = fit(unit, SMALL, place.w - used);
        canvas.text(place.x + used, place.y + 13.0, &unit, SMALL, Ink::Muted, Align::Left);

        let widest =
            y_axis.ticks.iter().map(|(_, label)| text_width(label, SMALL)).fold(0.0, f64::max);
        let left = place.x + widest + 8.0;
        let right = place.x + place.w - 6.0;
        let (top, bottom) = (place.y + TITLE, place.y + place.h - FOOT);
        let panel = Panel { x: x_axis.scale(left, right), y: y_axis.scale(bottom, top) };

        for (value, label) in &y_axis.ticks {
            let y = panel.y.at(*value);
            canvas.line(&[(left, y), (right, y)], Ink::Grid, 1.0);
            canvas.text(left - 6.0, y + 4.0, label, SMALL, Ink::Muted, Align::Right);
        }
        let mut free_from = f64::NEG_INFINITY;
        for (value, label) in &x_axis.ticks {
            let x = panel.x.at(*value);
            canvas.line(&[(x, bottom), (x, bottom + 4.0)], Ink::Axis, 1.0);
            let half = text_width(label, SMALL) / 2.0;
            // Neighbouring labels never touch: the later one is left out.
            if x - half >= free_from {
                let middle = x.min(place.x + place.w - half);
                canvas.text(middle, bottom + 17.0, label, SMALL, Ink::Muted, Align::Centre);
                free_from = x + half + 6.0;
            }
        }
        canvas.line(&[(left, bottom), (right, bottom)], Ink::Axis, 1.0);
        let name = fit(&x_axis.title, SMALL, place.w);
        canvas.text((left + right) / 2.0, bottom + 33.0, &name, SMALL, Ink::Muted, Align::Centre);
        panel
    }

    /// A reference line through (x value, y value) points.
    pub(crate) fn reference(&self, canvas: &Canvas<'_>, points: &[(f64, f64)]) {
        let mut places: Vec<_> =
            points.iter().map(|&(x, y)| (self.x.at(x), self.y.at(y))).collect();
        if let [(x, y)] = places[..] {
            // One layer: a line needs two ends.
            places = vec![(x - 24.0, y), (x + 24.0, y)];
        }
        canvas.dashed(&places, Ink::Reference, 1.4);
    }
}

/// Lays `count` panels out in rows; returns their places and the height used from `top`.
pub(crate) fn lay_out(
    canvas: &Canvas<'_>,
    top: f64,
    count: usize,
    narrowest: f64,
    height: f64,
) -> (Vec<Place>, f64) {
    const GAP_X: f64 = 28.0;
    const GAP_Y: f64 = 16.0;
    let fitting = ((canvas.width + GAP_X) / (narrowest + GAP_X)).floor().max(1.0) as usize;
    let mut columns = fitting.min(count.max(1));
    // Four panels are two by two, not three and one.
    while columns > 1
        && !count.is_multiple_of(columns)
        && count.div_ceil(columns - 1) == count.div_ceil(columns)
    {
        columns -= 1;
    }
    let w = (canvas.width - GAP_X * (columns - 1) as f64) / columns as f64;
    let places = (0..count)
        .map(|n| Place {
            x: (n % columns) as f64 * (w + GAP_X),
            y: top + (n / columns) as f64 * (height + GAP_Y),
            w,
            h: height,
        })
        .collect();
    let rows = count.div_ceil(columns);
    (places, rows as f64 * height + rows.saturating_sub(1) as f64 * GAP_Y)
}
