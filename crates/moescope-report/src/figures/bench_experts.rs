//! What a decode pass costs against how many experts its batch touches.

use super::curves::{Curve, curve_panel};
use super::{Caption, Figure};
use crate::bench::{Phase, Vary, test};
use crate::canvas::{Axis, Canvas, Dash, Key, Marker, Place, legend};
use crate::data::Data;
use crate::format::{NOTHING, count, duration, number, time_unit};
use crate::palette::Ink;
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "bench-experts",
    title: "Time of a decode pass against distinct experts",
    section: sections::BENCH,
    applicable: |data| match series(data).is_empty() {
        true => Err("no two batches with counted experts differ in the batch alone".into()),
        false => Ok(()),
    },
    caption,
    draw,
    table,
};

/// More curves can't be told apart.
const MAX_SERIES: usize = 8;

/// Batches of one configuration.
struct Series {
    name: String,
    /// By batch, ascending.
    points: Vec<Point>,
}

#[derive(Clone, Copy)]
struct Point {
    batch: u32,
    /// Experts that a pass touches, mean over layers.
    distinct: f64,
    /// The same under uniform routing.
    expected: Option<f64>,
    ns: f64,
    interval: Option<(f64, f64)>,
}

fn series(data: &Data<'_>) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for bench in &data.benches {
        for row in &bench.rows {
            let (Some(rate), Some(distinct)) =
                (row.rate(Phase::Generation), row.row.facts.distinct_experts)
            else {
                continue;
            };
            let configuration = row.configuration();
            let workload = data.workload(configuration);
            let test = test(configuration, Phase::Generation, Vary::Batch) + &workload;
            let name = match data.benches.len() {
                1 => test,
                _ => format!("{}: {test}", bench.tagged()),
            };
            // A pass gives every sequence a token.
            let ns =
                |tokens_per_second: f64| f64::from(configuration.batch) * 1e9 / tokens_per_second;
            let point = Point {
                batch: configuration.batch,
                distinct,
                expected: row.row.facts.distinct_expected,
                ns: ns(rate.median),
                interval: rate.interval.map(|(low, high)| (ns(high), ns(low))),
            };
            match all.iter_mut().find(|known| known.name == name) {
                Some(known) => known.points.push(point),
                None => all.push(Series { name, points: vec![point] }),
            }
        }
    }
    for series in &mut all {
        series.points.sort_by_key(|point| point.batch);
    }
    all.retain(|series| {
        series.points.first().map(|p| p.batch) != series.points.last().map(|p| p.batch)
    });
    all
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let mut all = series(data);
    all.truncate(MAX_SERIES);
    let points = || all.iter().flat_map(|series| &series.points);
    let mut keys: Vec<(Key, String)> = all
        .iter()
        .enumerate()
        .map(|(n, series)| (Key::Mark(Marker::series(n), Ink::series(n)), series.name.clone()))
        .collect();
    if points().any(|point| point.expected.is_some()) {
        keys.push((
            Key::Reference,
            "chance: experts of as large a batch under uniform routing".into(),
        ));
    }
    let top = legend(canvas, 0.0, &keys) + 12.0;
    let place = Place { x: 0.0, y: top, w: canvas.width.min(560.0), h: 260.0 };
    let unit = time_unit(points().map(|point| point.ns).fold(0.0, f64::max));
    let slowest = points().map(|p| p.interval.map_or(p.ns, |range| range.1.max(p.ns)));
    let slowest = slowest.fold(0.0, f64::max) / unit.factor;
    let experts = points().map(|point| point.distinct.max(point.expected.unwrap_or(0.0)));
    let x_axis = Axis::linear("distinct experts per layer", 0.0, experts.fold(1.0, f64::max), 6);
    let y_axis = Axis::linear(&format!("{} per pass", unit.name), 0.0, slowest, 4);
    let curves: Vec<Curve> = all
        .iter()
        .enumerate()
        .map(|(n, series)| Curve {
            ink: Ink::series(n),
            marker: Marker::series(n),
            points: series
                .points
                .iter()
                .map(|point| {
                    let range = point.interval.map(|(l, h)| (l / unit.factor, h / unit.factor));
                    (point.distinct, point.ns / unit.factor, range)
                })
                .collect(),
        })
        .collect();
    let title = "Decode, a mark per batch";
    let panel = curve_panel(canvas, place, title, (&x_axis, &y_axis), &curves, &[]);
    for (n, series) in all.iter().enumerate() {
        let of = |p: &Point| Some((panel.x.at(p.expected?), panel.y.at(p.ns / unit.factor)));
        let level: Vec<(f64, f64)> = series.points.iter().filter_map(of).collect();
        canvas.broken(&level, Dash::Short, Ink::series(n), 1.4);
    }
    top + place.h
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "A decode pass gives each sequence of a batch one token and reads the experts of all of them: the larger \
         the batch, the more experts and the longer the pass. Left of its dashed line a batch shares more experts \
         than uniform routing would. A larger batch also computes more and reads more cache, so the slope is \
         what a batch costs, at most what an expert does. Marks are medians, vertical bars 95\u{a0}% intervals over \
         samples.",
    );
    let all = series(data);
    for series in &all {
        let (Some(few), Some(many)) = (series.points.first(), series.points.last()) else {
            continue;
        };
        let by_chance =
            many.expected.map_or_else(String::new, |n| format!(", {} by chance", number(n)));
        caption.said_of(
            &series.name,
            format!(
                "{}: {} with {} experts per layer at batch {}, {} with {}{by_chance} at batch {}.",
                series.name,
                duration(few.ns),
                number(few.distinct),
                few.batch,
                duration(many.ns),
                number(many.distinct),
                many.batch
            ),
        );
    }
    if all.len() > MAX_SERIES {
        caption = caption.note(&format!(
            " The first {MAX_SERIES} of {} configurations are drawn; the table has all.",
            all.len()
        ));
    }
    caption
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new()
        .text("Configuration")
        .number("Batch")
        .number("Distinct experts per layer")
        .number("By chance")
        .number("Time per pass, median")
        .number("95\u{a0}% interval");
    for series in series(data) {
        for point in &series.points {
            let range = point.interval.map(|(l, h)| format!("{} – {}", duration(l), duration(h)));
            table.row(vec![
                series.name.clone(),
                count(point.batch.into()),
                number(point.distinct),
                point.expected.map_or(NOTHING.into(), number),
                duration(point.ns),
                range.unwrap_or(NOTHING.into()),
            ]);
        }
    }
    table.trimmed()
}
