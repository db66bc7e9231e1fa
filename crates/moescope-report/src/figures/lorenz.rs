//! How much of the traffic the busiest experts serve, on text the ranking did not see.

use super::curves::{Curve, curve_panel, share_axis};
use super::{Caption, Figure};
use crate::canvas::{Axis, Canvas, Key, Place, legend, run_keys};
use crate::data::{Data, Point, Run};
use crate::format::{NOTHING, percent};
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "lorenz",
    title: "Traffic that the busiest experts serve",
    section: sections::LOAD,
    applicable: |data| data.needs_routing("lorenz"),
    caption,
    draw,
    table,
};

/// Mean over layers by number of experts, with the range over layers.
fn curve(run: &Run<'_>) -> Vec<Point> {
    run.mean_by_size("lorenz", None)
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let mut keys = run_keys(canvas, data, |run| run.has("lorenz"));
    keys.push((Key::Reference, "all experts used alike".into()));
    let top = legend(canvas, 0.0, &keys) + 12.0;
    let place = Place { x: 0.0, y: top, w: canvas.width.min(560.0), h: 290.0 };
    let mut x_axis = Axis::linear("% of the experts of a layer, the busiest first", 0.0, 1.0, 5);
    x_axis.ticks = [0, 25, 50, 75, 100].map(|v| (f64::from(v) / 100.0, v.to_string())).to_vec();
    let y_axis = share_axis("% of the selections");
    let curves: Vec<Curve> = data
        .runs
        .iter()
        .enumerate()
        .map(|(n, run)| {
            let experts = f64::from(run.most_experts().max(1));
            let mut curve = Curve::new(n, &curve(run), |x| x / experts, |y| y);
            curve.points.insert(0, (0.0, 0.0, None));
            curve
        })
        .filter(|curve| curve.points.len() > 1)
        .collect();
    let even = [(0.0, 0.0), (1.0, 1.0)];
    curve_panel(canvas, place, "Mean over layers", (&x_axis, &y_axis), &curves, &even);
    top + place.h
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "Experts are ranked by their use in one half of the sequences and measured on the other, so that luck \
         alone gives the dashed line. The higher the curve rises above it, the more a fixed set of experts \
         serves. Vertical bars reach from the most even to the least even layer.",
    );
    for run in &data.runs {
        let points = curve(run);
        let quarter = u32::from(run.most_experts()).div_ceil(4);
        if let Some(point) = points.iter().find(|point| point.x == quarter) {
            let range = point.range.map_or(String::new(), |(low, high)| {
                format!(" ({} to {} by layer)", percent(low), percent(high))
            });
            caption.fact(
                run,
                format!(
                    "{}: the busiest quarter of the experts serves {} of the selections{range}.",
                    run.tagged(),
                    percent(point.value)
                ),
            );
        }
    }
    caption
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new()
        .text("Run")
        .number("Experts")
        .number("Selections served")
        .number("Range over layers")
        .number("By chance");
    for run in &data.runs {
        for point in curve(run) {
            table.row(vec![
                run.tagged(),
                point.x.to_string(),
                percent(point.value),
                super::share_interval(point.range),
                point.chance.map_or(NOTHING.into(), percent),
            ]);
        }
    }
    table.trimmed()
}
