//! How much of the traffic the busiest experts serve, on text the ranking did not see.

use super::curves::{Curve, curve_panel, share_axis};
use super::{Caption, Figure};
use crate::canvas::{Align, Axis, Canvas, Dash, Key, Place, SMALL, legend, run_keys};
use crate::data::{Data, Point, Run};
use crate::format::{NOTHING, list, percent};
use crate::palette::Ink;
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

/// Shares of the selections that are marked.
const COVERED: [f64; 3] = [0.5, 0.8, 0.9];

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
    let panel = curve_panel(canvas, place, "Mean over layers", (&x_axis, &y_axis), &curves, &even);
    for share in COVERED {
        let y = panel.y.at(share);
        canvas.broken(&[(panel.x.from, y), (panel.x.to, y)], Dash::Dots, Ink::Muted, 1.2);
        let label = format!("{:.0} %", share * 100.0);
        canvas.text(panel.x.from + 4.0, y - 4.0, &label, SMALL, Ink::Muted, Align::Left);
    }
    top + place.h
}

/// The experts that serve a share of the selections, of so many: interpolated between whole experts.
fn serving(points: &[Point], share: f64, experts: f64) -> Option<f64> {
    let after = points.iter().position(|point| point.value >= share)?;
    let to = &points[after];
    let (from, served) = match after {
        0 => (0.0, 0.0),
        n => (f64::from(points[n - 1].x), points[n - 1].value),
    };
    let part = (share - served) / (to.value - served).max(f64::MIN_POSITIVE);
    Some((from + part * (f64::from(to.x) - from)) / experts.max(1.0))
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "Experts are ranked by their use in one half of the sequences and measured on the other, so that luck \
         alone gives the dashed line. The higher the curve rises above it, the more a fixed set of experts \
         serves. Dotted lines mark 50, 80 and 90\u{a0}% of the selections. Vertical bars reach from the most \
         even to the least even layer.",
    );
    for run in &data.runs {
        let points = curve(run);
        let quarter = u32::from(run.most_experts()).div_ceil(4);
        if let Some(point) = points.iter().find(|point| point.x == quarter) {
            let range = point.range.map_or(String::new(), |(low, high)| {
                format!(" ({} to {} by layer)", percent(low), percent(high))
            });
            let experts = f64::from(run.most_experts());
            let needed: Vec<String> = COVERED
                .into_iter()
                .filter_map(|share| serving(&points, share, experts).map(|of| (share, of)))
                .map(|(share, of)| format!("{:.0}\u{a0}% take {}", share * 100.0, percent(of)))
                .collect();
            caption.fact(run, format!(
                "{}: the busiest quarter of the experts serves {} of the selections{range}; {} of the experts.",
                run.tagged(),
                percent(point.value),
                list(&needed)
            ));
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
