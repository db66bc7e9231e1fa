//! How many different experts a stretch of text, or a batch, needs.

use super::curves::{Curve, chance_of, curve_panel, doubling_axis};
use super::{Caption, Figure};
use crate::canvas::{Axis, Canvas, Key, lay_out, legend, run_keys};
use crate::data::{Data, Point, Run};
use crate::format::{NOTHING, count, interval, number};
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "working-set",
    title: "Working set against window",
    section: sections::CACHING,
    applicable: |data| data.needs_routing(VIEWS[0].0),
    caption,
    draw,
    table,
};

/// Metric, title, x axis.
const VIEWS: [(&str, &str, &str); 2] = [
    ("working_set", "A stretch of one text", "tokens in a row"),
    ("batch_working_set", "A batch", "sequences, a token of each"),
];

/// Over all tokens; batches are of one phase, and of generated tokens where there are some.
fn curve(run: &Run<'_>, metric: &'static str) -> Vec<Point> {
    let whole = run.mean_by_size(metric, None);
    if whole.is_empty() { run.mean_by_size(metric, run.generation(metric)) } else { whole }
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let mut keys = run_keys(canvas, data, |run| run.has(VIEWS[0].0));
    keys.push((Key::Reference, "chance".into()));
    let top = legend(canvas, 0.0, &keys) + 12.0;
    let shown: Vec<_> = VIEWS.iter().filter(|(metric, ..)| data.has(metric)).collect();
    let (places, height) = lay_out(canvas, top, shown.len(), 300.0, 250.0);
    let experts = data.runs.iter().map(Run::most_experts).max().unwrap_or(1);
    for (&(metric, title, x_title), place) in shown.into_iter().zip(places) {
        let curves: Vec<Vec<Point>> = data.runs.iter().map(|run| curve(run, metric)).collect();
        let sizes = || curves.iter().flatten().map(|point| f64::from(point.x));
        let (low, high) = (sizes().fold(f64::INFINITY, f64::min), sizes().fold(1.0, f64::max));
        let x_axis = doubling_axis(x_title, low.min(high), high, 8);
        let y_axis = Axis::linear("experts per layer", 0.0, f64::from(experts), 4);
        let drawn: Vec<Curve> = curves
            .iter()
            .enumerate()
            .map(|(n, points)| Curve::new(n, points, |x| x, |y| y))
            .filter(|curve| !curve.points.is_empty())
            .collect();
        let chance = curves.iter().find(|points| !points.is_empty());
        let chance = chance.map_or(Vec::new(), |points| chance_of(points, |x| x, |y| y));
        curve_panel(canvas, place, title, (&x_axis, &y_axis), &drawn, &chance);
    }
    top + height
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "Distinct experts that a window of text needs at a layer, and that a batch needs in one pass. Below \
         the dashed line a cache of that many experts holds more text than uniform routing would let it, and \
         a batch reads fewer weights. Mean over layers; vertical bars reach from the lowest to the highest.",
    );
    for run in &data.runs {
        if let Some(point) = curve(run, VIEWS[0].0).into_iter().find(|point| point.x >= 16) {
            caption.fact(
                run,
                format!(
                    "{}: {} tokens in a row need {} of {} experts (by chance {}).",
                    run.tagged(),
                    count(point.x.into()),
                    number(point.value),
                    run.most_experts(),
                    point.chance.map_or(NOTHING.into(), number)
                ),
            );
        }
    }
    caption
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new()
        .text("Run")
        .text("Window")
        .number("Size")
        .number("Experts per layer")
        .number("Range over layers")
        .number("By chance");
    for run in &data.runs {
        for (metric, title, _) in VIEWS {
            for point in curve(run, metric) {
                table.row(vec![
                    run.tagged(),
                    title.into(),
                    count(point.x.into()),
                    number(point.value),
                    interval(point.range),
                    point.chance.map_or(NOTHING.into(), number),
                ]);
            }
        }
    }
    table.trimmed()
}
