//! How long forward passes take: the whole distribution, prefill and decode apart.

use moescope_analysis::stats::quantile;
use moescope_trace::Phase;
use moescope_trace::manifest::TimingMode;

use super::{Caption, Figure, devices_note};
use crate::canvas::{Axis, Canvas, Marker, Panel, lay_out, legend, run_keys};
use crate::data::{Data, Run};
use crate::format::{count, duration, time_unit};
use crate::palette::Ink;
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "latency",
    title: "Time per forward pass",
    section: sections::SPEED,
    applicable: |data| {
        if data.runs.iter().any(is_timed) { Ok(()) } else { Err("no times were recorded".into()) }
    },
    caption,
    draw,
    table,
};

const PHASES: [(Phase, &str); 2] = [(Phase::Prefill, "Prefill"), (Phase::Decode, "Decode")];

fn is_timed(run: &Run<'_>) -> bool {
    run.manifest.settings.timing_mode != TimingMode::None
        && run.steps.duration_ns.iter().any(|ns| *ns > 0)
}

/// Durations of each run in a phase, ascending; empty where it has none.
fn series(data: &Data<'_>, phase: Phase) -> Vec<Vec<f64>> {
    data.runs.iter().map(|run| if is_timed(run) { run.durations(phase) } else { vec![] }).collect()
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let top = legend(canvas, 0.0, &run_keys(canvas, data, is_timed)) + 12.0;
    let shown: Vec<_> = PHASES
        .iter()
        .map(|&(phase, name)| (name, series(data, phase)))
        .filter(|(_, lines)| lines.iter().any(|line| !line.is_empty()))
        .collect();
    let (places, height) = lay_out(canvas, top, shown.len(), 300.0, 250.0);
    for ((name, lines), place) in shown.into_iter().zip(places) {
        let all = || lines.iter().filter(|line| !line.is_empty());
        // The slowest pass in a hundred is in the table; it would squeeze the rest.
        let low = all().map(|line| line[0]).fold(f64::INFINITY, f64::min);
        let high = all().map(|line| quantile(line, 0.995)).fold(0.0, f64::max);
        let middle = all().map(|line| quantile(line, 0.5)).fold(0.0, f64::max);
        let unit = time_unit(middle);
        let title = format!("{} per pass", unit.name);
        let (low, high) = (low / unit.factor, high / unit.factor);
        let x_axis = if high > 4.0 * low.max(1e-9) {
            Axis::log(&format!("{title}, logarithmic"), low, high, (place.w / 55.0) as usize)
        } else {
            let air = (high - low).max(high * 0.05) * 0.06;
            Axis::tight(&title, (low - air).max(0.0), high + air, (place.w / 65.0) as usize)
        };
        let mut y_axis = Axis::linear("% of passes at most as long", 0.0, 100.0, 4);
        y_axis.ticks = [0, 25, 50, 75, 100].map(|v| (f64::from(v), v.to_string())).to_vec();
        let panel = Panel::draw(canvas, place, name, &x_axis, &y_axis);
        for (n, line) in lines.iter().enumerate().filter(|(_, line)| !line.is_empty()) {
            let ink = Ink::series(n);
            let at = |share: f64| {
                let value = quantile(line, share) / unit.factor;
                (panel.x.at(value), panel.y.at(share * 100.0))
            };
            // At most 200 points tell the curve; each pass is one where there are fewer.
            let steps = line.len().clamp(2, 200);
            let points: Vec<_> = (0..steps).map(|s| at(s as f64 / (steps - 1) as f64)).collect();
            canvas.line(&points, ink, 1.8);
            for share in [0.5, 0.95] {
                let (x, y) = at(share);
                canvas.marker(x, y, 7.0, Marker::series(n), ink);
            }
        }
    }
    top + height
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "For each duration, the share of forward passes that took at most that long: a steep line is a \
         steady pace, a long foot to the right means stragglers. Marks are the median and the 95th \
         percentile. A prefill pass is a whole prompt, so its spread is also that of the prompt lengths.",
    );
    for (run, decode) in data.runs.iter().zip(series(data, Phase::Decode)) {
        if !decode.is_empty() {
            caption.fact(
                run,
                format!(
                    "{} decodes a step in {} (median), {} at the 95th percentile.",
                    run.tagged(),
                    duration(quantile(&decode, 0.5)),
                    duration(quantile(&decode, 0.95))
                ),
            );
        }
    }
    if data.runs.iter().any(|run| run.manifest.settings.timing_mode == TimingMode::Profiled) {
        caption = caption.note(
            " Runs labelled profiled waited for the device after every component, so their passes are \
             longer than real ones.",
        );
    }
    caption.note(&devices_note(data))
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new()
        .text("Run")
        .text("Phase")
        .number("Passes")
        .number("Shortest")
        .number("5 %")
        .number("Median")
        .number("95\u{a0}%")
        .number("99 %")
        .number("Longest");
    for (phase, name) in PHASES {
        for (run, line) in data.runs.iter().zip(series(data, phase)) {
            if line.is_empty() {
                continue;
            }
            let mut cells = vec![run.tagged(), name.into(), count(line.len() as u64)];
            for share in [0.0, 0.05, 0.5, 0.95, 0.99, 1.0] {
                cells.push(duration(quantile(&line, share)));
            }
            table.row(cells);
        }
    }
    table.trimmed()
}
