//! Curves over sizes, windows and lags: what several figures share.

use crate::canvas::{Axis, Canvas, Marker, Panel, Place};
use crate::data::Point;
use crate::palette::Ink;

/// x, y and the range of y.
type Mark = (f64, f64, Option<(f64, f64)>);

/// A curve with its marks.
pub(super) struct Curve {
    pub(super) ink: Ink,
    pub(super) marker: Marker,
    pub(super) points: Vec<Mark>,
}

impl Curve {
    /// The n-th curve through points; `x` and `y` turn a point's into those of the axes.
    pub(super) fn new(
        n: usize,
        points: &[Point],
        x: impl Fn(f64) -> f64,
        y: impl Fn(f64) -> f64,
    ) -> Self {
        let at = |point: &Point| {
            let range = point.range.map(|(low, high)| (y(low), y(high)));
            (x(f64::from(point.x)), y(point.value), range)
        };
        let points = points.iter().map(at).collect();
        Self { ink: Ink::series(n), marker: Marker::series(n), points }
    }
}

/// The chance levels of points on the same axes.
pub(super) fn chance_of(
    points: &[Point],
    x: impl Fn(f64) -> f64,
    y: impl Fn(f64) -> f64,
) -> Vec<(f64, f64)> {
    points.iter().filter_map(|p| Some((x(f64::from(p.x)), y(p.chance?)))).collect()
}

/// Marks on a curve: more would run into each other.
const MARKS: usize = 7;

/// Draws a panel of curves with a dashed chance level; ranges are drawn where there are few curves.
pub(super) fn curve_panel(
    canvas: &Canvas<'_>,
    place: Place,
    title: &str,
    axes: (&Axis, &Axis),
    curves: &[Curve],
    chance: &[(f64, f64)],
) -> Panel {
    let panel = Panel::draw(canvas, place, title, axes.0, axes.1);
    let chance: Vec<_> = chance.iter().map(|&(x, y)| (panel.x.at(x), panel.y.at(y))).collect();
    canvas.dashed(&chance, Ink::Reference, 1.4);
    for (n, curve) in curves.iter().enumerate() {
        let at = |&(x, y, _): &(f64, f64, _)| (panel.x.at(x), panel.y.at(y));
        let points: Vec<_> = curve.points.iter().map(at).collect();
        canvas.line(&points, curve.ink, 1.8);
        // Evenly spaced on the page, not among the points, and shifted from curve to curve.
        let (from, to) = (panel.x.from, panel.x.to);
        let mut next = from + (to - from) / MARKS as f64 * n as f64 / curves.len().max(1) as f64;
        let few = points.len() <= MARKS;
        for (point, (x, y)) in curve.points.iter().zip(points) {
            if x < next - 0.5 && !few {
                continue;
            }
            next = x + (to - from) / MARKS as f64;
            if let (Some((low, high)), true) = (point.2, curves.len() <= 5) {
                canvas.line(&[(x, panel.y.at(low)), (x, panel.y.at(high))], curve.ink, 1.0);
            }
            canvas.marker(x, y, 6.5, curve.marker, curve.ink);
        }
    }
    panel
}

/// The y axis of shares, 0 to 100 %.
pub(super) fn share_axis(title: &str) -> Axis {
    let mut axis = Axis::linear(title, 0.0, 1.0, 4);
    axis.ticks = [0, 25, 50, 75, 100].map(|v| (f64::from(v) / 100.0, v.to_string())).to_vec();
    axis
}

/// A logarithmic axis of powers of two, which sizes and lags are.
pub(super) fn doubling_axis(title: &str, low: f64, high: f64, ticks: usize) -> Axis {
    let mut axis = Axis::log(title, low, high.max(low * 2.0), ticks);
    let powers: Vec<u32> = (0..31).map(|n| 1 << n).collect();
    let inside = |v: &&u32| (axis.low..=axis.high).contains(&f64::from(**v));
    let powers: Vec<u32> = powers.iter().filter(inside).copied().collect();
    let every = powers.len().div_ceil(ticks.max(1)).max(1);
    axis.ticks = powers
        .into_iter()
        .step_by(every)
        .map(|v| (f64::from(v), crate::format::count(v.into())))
        .collect();
    axis
}
