//! Tokens per second with intervals, a line per run.

use super::{Caption, Figure, devices_note};
use crate::canvas::{
    Align, Axis, Canvas, LABEL, Marker, Place, SMALL, TITLE, bold_width, lay_out, text_width,
};
use crate::data::Data;
use crate::format::{interval, number};
use crate::palette::Ink;
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "throughput",
    title: "Tokens per second",
    section: sections::SPEED,
    applicable: |data| {
        if data.has("throughput") {
            Ok(())
        } else {
            Err("no end-to-end times were recorded".into())
        }
    },
    caption,
    draw,
    table,
};

const PHASES: [(&str, &str); 2] = [("prefill", "Prefill"), ("decode", "Decode")];

/// Height of a run's line with its name above.
const ROW: f64 = 38.0;

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let shown: Vec<_> = PHASES
        .iter()
        .filter(|(phase, _)| data.runs.iter().any(|run| run.throughput(phase).is_some()))
        .collect();
    let rows = |phase: &str| data.runs.iter().filter(|r| r.throughput(phase).is_some()).count();
    let most = shown.iter().map(|(phase, _)| rows(phase)).max().unwrap_or(0);
    let panel_height = TITLE + most as f64 * ROW + 26.0;
    let (places, height) = lay_out(canvas, 0.0, shown.len(), 300.0, panel_height);
    for (&(phase, name), place) in shown.into_iter().zip(places) {
        bars(canvas, data, place, phase, name);
    }
    height
}

fn bars(canvas: &Canvas<'_>, data: &Data<'_>, place: Place, phase: &str, name: &str) {
    let title_width = bold_width(name, LABEL) + 8.0;
    canvas.strong(place.x, place.y + 13.0, name, LABEL, Ink::Text);
    let unit = "tokens/s";
    canvas.text(place.x + title_width, place.y + 13.0, unit, SMALL, Ink::Muted, Align::Left);
    let rows: Vec<_> = data
        .runs
        .iter()
        .enumerate()
        .filter_map(|(n, run)| Some((n, run, run.throughput(phase)?)))
        .collect();
    let high = rows
        .iter()
        .map(|(_, _, row)| row.interval.map_or(row.value, |(_, high)| high.max(row.value)))
        .filter(|v| v.is_finite())
        .fold(0.0, f64::max);
    let axis = Axis::linear("", 0.0, high, (place.w / 90.0) as usize);
    let scale = axis.scale(place.x + 1.0, place.x + place.w - 6.0);
    let (top, bottom) = (place.y + TITLE, place.y + TITLE + rows.len() as f64 * ROW);
    for (value, label) in &axis.ticks {
        let x = scale.at(*value);
        canvas.line(&[(x, top), (x, bottom)], Ink::Grid, 1.0);
        let half = text_width(label, SMALL) / 2.0;
        let middle = x.clamp(place.x + half, place.x + place.w - half);
        canvas.text(middle, bottom + 16.0, label, SMALL, Ink::Muted, Align::Centre);
    }
    canvas.line(&[(scale.from, top), (scale.from, bottom)], Ink::Axis, 1.0);
    for (slot, (n, run, row)) in rows.into_iter().enumerate() {
        let y = top + slot as f64 * ROW;
        let value = number(row.value);
        let value_width = text_width(&value, SMALL);
        let room = place.w - value_width - 24.0;
        let label = run.fitted(room, |text| text_width(text, SMALL));
        canvas.text(place.x + 6.0, y + 15.0, &label, SMALL, Ink::Text, Align::Left);
        let right = place.x + place.w - 6.0;
        canvas.text(right, y + 15.0, &value, SMALL, Ink::Text, Align::Right);
        let end = scale.at(row.value);
        // A point with whiskers on a pale track from zero: a bar would hide half of the interval.
        let (middle, ink) = (y + 26.0, Ink::series(n));
        canvas.line(&[(scale.from, middle), (end, middle)], Ink::Missing, 3.0);
        if let Some((low, high)) = row.interval {
            let (low, high) = (scale.at(low), scale.at(high));
            canvas.line(&[(low, middle), (high, middle)], ink, 2.2);
            for x in [low, high] {
                canvas.line(&[(x, middle - 5.0), (x, middle + 5.0)], ink, 2.2);
            }
        }
        canvas.marker(end, middle, 9.0, Marker::series(n), ink);
    }
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "Tokens over the time of the passes of a phase, with tokenisation and sampling left out. \
         Whiskers are 95\u{a0}% intervals over sequences: runs whose whiskers overlap widely are not shown \
         to differ.",
    );
    for run in &data.runs {
        let speeds: Vec<String> = PHASES
            .iter()
            .filter_map(|(phase, _)| {
                Some(format!("{} tokens/s in {phase}", number(run.throughput(phase)?.value)))
            })
            .collect();
        if !speeds.is_empty() {
            caption.fact(run, format!("{}: {}.", run.tagged(), crate::format::list(&speeds)));
        }
    }
    caption.note(&devices_note(data))
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new()
        .text("Run")
        .text("Device")
        .text("Phase")
        .number("Tokens/s")
        .number("95\u{a0}% interval");
    for (phase, name) in PHASES {
        for run in &data.runs {
            let Some(row) = run.throughput(phase) else { continue };
            table.row(vec![
                run.tagged(),
                crate::sanitize::short(&run.device(), 60),
                name.into(),
                number(row.value),
                interval(row.interval),
            ]);
        }
    }
    table.trimmed()
}
