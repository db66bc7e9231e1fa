//! Curves over the configurations of bench results: what the figures of throughput share.

use super::Caption;
use super::curves::{Curve, curve_panel, doubling_axis};
use crate::bench::{Phase, Rate, Vary, test};
use crate::canvas::{Axis, Canvas, Key, LABEL, Marker, Place, lay_out, legend_in, text_width};
use crate::data::{Data, fitted, tagged};
use crate::format::{count, interval, number};
use crate::palette::Ink;
use crate::table::Table;

/// One curve: rows that differ in nothing but what the figure varies.
pub(super) struct Series<'d> {
    /// Name with the tags of its result.
    pub(super) name: String,
    untagged: String,
    tags: &'d [&'static str],
    pub(super) phase: Phase,
    /// Position on the axis and rate, ascending.
    pub(super) points: Vec<(f64, &'d Rate)>,
}

/// What panels are called.
pub(super) const PHASES: [(Phase, &str); 2] =
    [(Phase::Prompt, "Prompt processing"), (Phase::Generation, "Token generation")];

/// Height of a panel.
const HEIGHT: f64 = 240.0;

/// Height of a line of a legend whose entries are too long to share one.
const LINE: f64 = 20.0;

/// More curves than this in a figure can't be told apart.
const MAX_SERIES: usize = 10;

/// All curves of at least two points, those of the first results first.
pub(super) fn series<'d>(data: &'d Data<'_>, vary: Vary) -> Vec<Series<'d>> {
    let mut all: Vec<Series<'d>> = Vec::new();
    for bench in &data.benches {
        for (phase, _) in PHASES {
            for row in &bench.rows {
                let Some(rate) = row.rate(phase) else { continue };
                let configuration = row.configuration();
                let workload = data.workload(configuration);
                let test = test(configuration, phase, vary) + &workload;
                let untagged = match data.benches.len() {
                    1 => test,
                    _ => format!("{}: {test}", bench.name),
                };
                let point = (vary.of(row.configuration()), rate);
                let same =
                    |known: &&mut Series<'_>| known.untagged == untagged && known.phase == phase;
                match all.iter_mut().find(same) {
                    Some(known) => known.points.push(point),
                    None => {
                        let name = tagged(&untagged, &bench.tags);
                        let points = vec![point];
                        all.push(Series { name, untagged, tags: &bench.tags, phase, points });
                    }
                }
            }
        }
    }
    for series in &mut all {
        series.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    all.retain(|series| {
        let first = series.points.first().map(|point| point.0);
        series.points.iter().any(|point| Some(point.0) != first)
    });
    all
}

/// Whether there is a curve; `Err` ends the sentence "No figure of ...".
pub(super) fn applicable(data: &Data<'_>, vary: Vary, what: &str) -> Result<(), String> {
    match series(data, vary).is_empty() {
        true => Err(format!("no two configurations differ in {what} alone")),
        false => Ok(()),
    }
}

/// Panels of prompt processing and token generation, a value of each rate over what varies.
pub(super) fn draw(
    canvas: &Canvas<'_>,
    data: &Data<'_>,
    vary: Vary,
    axes: (&str, &str),
    value: impl Fn(&Rate) -> Option<(f64, Option<(f64, f64)>)>,
) -> f64 {
    let mut all = series(data, vary);
    all.retain(|series| series.points.iter().any(|(_, rate)| value(rate).is_some()));
    let mut panels = Vec::new();
    for (phase, title) in PHASES {
        let of_phase: Vec<&Series<'_>> =
            all.iter().filter(|series| series.phase == phase).take(MAX_SERIES).collect();
        if !of_phase.is_empty() {
            panels.push((title, of_phase));
        }
    }
    // A column per panel with its own legend above it: names are long and differ by phase.
    let (places, _) = lay_out(canvas, 0.0, panels.len(), 330.0, 0.0);
    let stacked = places.windows(2).any(|two| two[0].x == two[1].x);
    // Side by side, panels begin below the longest legend.
    let most = panels.iter().map(|(_, of_phase)| of_phase.len()).max().unwrap_or(0);
    let mut bottom = 0.0;
    for ((title, of_phase), place) in panels.into_iter().zip(places) {
        let y = if stacked { bottom } else { 0.0 };
        let room = place.w - 30.0;
        let keys: Vec<(Key, String)> = of_phase
            .iter()
            .enumerate()
            .map(|(n, series)| {
                let measure = |text: &str| text_width(text, LABEL);
                let name = fitted(&series.untagged, series.tags, room, measure);
                (Key::Mark(Marker::series(n), Ink::series(n)), name)
            })
            .collect();
        let used = legend_in(canvas, (place.x, place.w), y, &keys);
        let lines = if stacked { used } else { used.max(most as f64 * LINE) };
        let top = y + lines + 8.0;
        let curves: Vec<Curve> = of_phase
            .iter()
            .enumerate()
            .map(|(n, series)| Curve {
                ink: Ink::series(n),
                marker: Marker::series(n),
                points: series
                    .points
                    .iter()
                    .filter_map(|(x, rate)| {
                        let (value, range) = value(rate)?;
                        Some((*x, value, range))
                    })
                    .collect(),
            })
            .collect();
        let points = || curves.iter().flat_map(|curve| &curve.points);
        let high = points().map(|p| p.2.map_or(p.1, |r| r.1.max(p.1))).fold(0.0, f64::max);
        let last = points().map(|p| p.0).fold(1.0, f64::max);
        let first = points().map(|p| p.0).fold(f64::INFINITY, f64::min).min(last);
        let x_axis = if first > 0.0 {
            doubling_axis(axes.0, first * 0.93, last * 1.07, 8)
        } else {
            Axis::linear(axes.0, 0.0, last, (place.w / 75.0) as usize)
        };
        let y_axis = Axis::linear(axes.1, 0.0, high, 4);
        let panel = Place { y: top, h: HEIGHT, ..place };
        curve_panel(canvas, panel, title, (&x_axis, &y_axis), &curves, &[]);
        bottom = top + HEIGHT + 20.0;
    }
    bottom - 20.0
}

/// Says of each curve what its ends are.
pub(super) fn facts(mut caption: Caption, data: &Data<'_>, vary: Vary, at: &str) -> Caption {
    for series in series(data, vary) {
        let (Some((from, low)), Some((to, high))) = (series.points.first(), series.points.last())
        else {
            continue;
        };
        caption.said_of(
            &series.name,
            format!(
                "{}: {} tokens/s at {at} {}, {} at {} ({} times).",
                series.name,
                number(low.median),
                count(*from as u64),
                number(high.median),
                count(*to as u64),
                number(high.median / low.median)
            ),
        );
    }
    let failed = data.benches.iter().flat_map(|bench| &bench.rows);
    let failed = failed.filter(|row| row.row.error.is_some()).count();
    if failed > 0 {
        caption = caption.note(" Configurations that failed are in the table above.");
    }
    left_out(caption, &series(data, vary))
}

/// Says where a panel has more curves than can be told apart.
pub(super) fn left_out(caption: Caption, all: &[Series<'_>]) -> Caption {
    let most = PHASES.map(|(phase, _)| all.iter().filter(|one| one.phase == phase).count());
    if most.into_iter().all(|count| count <= MAX_SERIES) {
        return caption;
    }
    caption.note(&format!(" The first {MAX_SERIES} of a panel are drawn; the table has all."))
}

/// The numbers of all curves.
pub(super) fn table(data: &Data<'_>, vary: Vary, what: &str) -> Table {
    let mut table = Table::new()
        .text("Configuration")
        .number(what)
        .number("Tokens/s, median")
        .number("95\u{a0}% interval");
    for series in series(data, vary) {
        for (x, rate) in &series.points {
            table.row(vec![
                series.name.clone(),
                count(*x as u64),
                number(rate.median),
                interval(rate.interval),
            ]);
        }
    }
    table.trimmed()
}
