//! Load of the busiest GPU when experts are spread over several, before and after balancing.

use super::curves::{Curve, curve_panel, doubling_axis};
use super::{Caption, Figure, MAX_MULTIPLES, drawn_note};
use crate::canvas::{Axis, Canvas, Key, LABEL, Marker, bold_width, lay_out, legend};
use crate::data::{Data, Run};
use crate::format::{NOTHING, interval, number};
use crate::palette::Ink;
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "placement",
    title: "Expert parallelism before and after balancing",
    section: sections::DEPLOYMENT,
    applicable: |data| data.needs_routing(WAYS[0].0),
    caption,
    draw,
    table,
};

const WAYS: [(&str, &str); 3] = [
    ("gpu_imbalance", "experts in order"),
    ("gpu_imbalance_packed", "packed by load"),
    ("gpu_imbalance_eplb", "replicated and packed (EPLB)"),
];

fn able(run: &Run<'_>) -> bool {
    !run.by_size(WAYS[0].0, None, None).is_empty()
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let mut keys: Vec<(Key, String)> = WAYS
        .iter()
        .enumerate()
        .map(|(n, (_, name))| (Key::Mark(Marker::series(n), Ink::series(n)), (*name).into()))
        .collect();
    keys.push((Key::Reference, "even load".into()));
    let top = legend(canvas, 0.0, &keys) + 12.0;
    let runs: Vec<_> = data
        .drawn(FIGURE.id, MAX_MULTIPLES, able)
        .into_iter()
        .map(|run| (run, WAYS.map(|(metric, _)| run.by_size(metric, None, None))))
        .collect();
    let narrowest = if runs.len() == 1 { canvas.width.min(560.0) } else { 300.0 };
    let (places, height) = lay_out(canvas, top, runs.len(), narrowest, 230.0);
    let points = || runs.iter().flat_map(|(_, curves)| curves.iter().flatten());
    let high = points().map(|p| p.range.map_or(p.value, |r| r.1.max(p.value))).fold(1.2, f64::max);
    let most = points().map(|point| point.x).max().unwrap_or(2);
    for ((run, curves), place) in runs.iter().zip(places) {
        let x_axis = doubling_axis("GPUs", 1.8, f64::from(most) * 1.1, 8);
        let y_axis = Axis::linear("busiest GPU ÷ mean load", 1.0, high, 4);
        let curves: Vec<Curve> = curves
            .iter()
            .enumerate()
            .map(|(n, points)| Curve::new(n, points, |x| x, |y| y))
            .collect();
        let name = run.fitted(place.w - 150.0, |text| bold_width(text, LABEL));
        let even = [(x_axis.low, 1.0), (x_axis.high, 1.0)];
        curve_panel(canvas, place, &name, (&x_axis, &y_axis), &curves, &even);
    }
    top + height
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "A layer is done when its busiest GPU is: at 1 all GPUs finish together, at 2 they wait half of the \
         time. Mean over layers. The placement is chosen on one half of the sequences and measured on the \
         other; EPLB has one redundant expert per GPU. Vertical bars are 95\u{a0}% intervals over sequences.",
    );
    for run in data.drawn(FIGURE.id, MAX_MULTIPLES, able) {
        let curves = WAYS.map(|(metric, _)| run.by_size(metric, None, None));
        if let (Some(before), Some(after)) = (curves[0].last(), curves[2].last()) {
            caption.fact(
                run,
                format!(
                    "{} on {} GPUs: {} with experts in order, {} replicated and packed.",
                    run.tagged(),
                    before.x,
                    number(before.value),
                    number(after.value)
                ),
            );
        }
    }
    caption.note(&drawn_note(data, FIGURE.id, MAX_MULTIPLES, able))
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new().text("Run").number("GPUs");
    for (_, name) in WAYS {
        table = table.number(name).number("95\u{a0}% interval");
    }
    for run in &data.runs {
        let curves = WAYS.map(|(metric, _)| run.by_size(metric, None, None));
        for point in &curves[0] {
            let mut cells = vec![run.tagged(), point.x.to_string()];
            for curve in &curves {
                let found = curve.iter().find(|other| other.x == point.x);
                cells.push(found.map_or(NOTHING.into(), |point| number(point.value)));
                cells.push(interval(found.and_then(|point| point.range)));
            }
            table.row(cells);
        }
    }
    table.trimmed()
}
