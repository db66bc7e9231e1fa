//! Whether a token finds the experts of the tokens before it.

use moescope_analysis::Index;

use super::balance::layer_panel;
use super::curves::{Curve, chance_of, curve_panel, doubling_axis, share_axis};
use super::{Caption, Figure};
use crate::canvas::{Canvas, Key, lay_out, legend, run_keys};
use crate::data::{Data, LayerValue, Point, Run};
use crate::format::{NOTHING, count, percent};
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "reuse",
    title: "Reuse of experts against distance",
    section: sections::CACHING,
    applicable: |data| data.needs_routing("reuse"),
    caption,
    draw,
    table,
};

fn curve(run: &Run<'_>) -> Vec<Point> {
    run.mean_by_size("reuse", None)
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let mut keys = run_keys(canvas, data, |run| run.has("reuse"));
    keys.push((Key::Reference, "chance, k/E".into()));
    let top = legend(canvas, 0.0, &keys) + 12.0;
    let (places, height) = lay_out(canvas, top, 2, 300.0, 250.0);
    let curves: Vec<Vec<Point>> = data.runs.iter().map(curve).collect();
    let most = curves.iter().flatten().map(|point| point.x).max().unwrap_or(1);
    let drawn: Vec<Curve> = curves
        .iter()
        .enumerate()
        .map(|(n, points)| Curve::new(n, points, |x| x, |y| y))
        .filter(|curve| !curve.points.is_empty())
        .collect();
    let chance = curves.iter().find(|points| !points.is_empty());
    let chance = chance.map_or(Vec::new(), |points| chance_of(points, |x| x, |y| y));
    let x_axis = doubling_axis("distance in tokens", 1.0, f64::from(most), 8);
    let y_axis = share_axis("% of a token's experts used again");
    curve_panel(canvas, places[0], "Mean over layers", (&x_axis, &y_axis), &drawn, &chance);
    layer_panel(
        canvas,
        data,
        places[1],
        "reuse",
        "By the next token",
        "% of a token's experts",
        (0.0, 50.0),
        |run| {
            let next = run.per_layer_at("reuse", Some(Index::Lag(1)));
            next.into_iter().map(LayerValue::in_percent).collect()
        },
    );
    top + height
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "The share of a token's experts that the token n places later selects as well. What is above the \
         dashed line can be cached: a fall from left to right is locality, which a small cache catches; what \
         stays above it at a distance is lasting popularity. Vertical bars on the left reach from the lowest \
         to the highest layer.",
    );
    for run in &data.runs {
        let points = curve(run);
        if let (Some(first), Some(last)) = (points.first(), points.last()) {
            caption.fact(run, format!(
                "{}: {} of the experts are used again by the next token, {} at a distance of {} (by chance {}).",
                run.tagged(),
                percent(first.value),
                percent(last.value),
                count(last.x.into()),
                first.chance.map_or(NOTHING.into(), percent)
            ));
        }
    }
    caption
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new()
        .text("Run")
        .number("Distance, tokens")
        .number("Experts used again")
        .number("Range over layers")
        .number("By chance");
    for run in &data.runs {
        for point in curve(run) {
            table.row(vec![
                run.tagged(),
                count(point.x.into()),
                percent(point.value),
                super::share_interval(point.range),
                point.chance.map_or(NOTHING.into(), percent),
            ]);
        }
    }
    table.trimmed()
}
