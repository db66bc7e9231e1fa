//! Memory over the forward passes of a run.

use super::{Caption, Figure, MAX_MULTIPLES, drawn_note};
use crate::canvas::{Axis, Canvas, Key, LABEL, Panel, bold_width, lay_out, legend};
use crate::data::{Data, Run};
use crate::format::{NOTHING, byte_unit, bytes};
use crate::palette::Ink;
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "memory",
    title: "Memory over the run",
    section: sections::MEMORY,
    applicable: |data| {
        let any = data.runs.iter().any(|run| QUANTITIES.iter().any(|q| q.peak(run).is_some()));
        if any { Ok(()) } else { Err("no memory was recorded".into()) }
    },
    caption,
    draw,
    table,
};

struct Quantity {
    name: &'static str,
    ink: Ink,
    column: for<'r> fn(&'r Run<'_>) -> &'r [Option<u64>],
}

const QUANTITIES: [Quantity; 3] = [
    Quantity {
        name: "in use on the device",
        ink: Ink::Series(0),
        column: |r| &r.steps.bytes_in_use,
    },
    Quantity {
        name: "reserved on the device",
        ink: Ink::Series(1),
        column: |r| &r.steps.bytes_reserved,
    },
    Quantity { name: "process (RSS)", ink: Ink::Series(2), column: |r| &r.steps.rss_bytes },
];

impl Quantity {
    fn peak(&self, run: &Run<'_>) -> Option<u64> {
        (self.column)(run).iter().flatten().copied().max()
    }

    /// (pass, bytes) of at most about 300 passes: the highest of each stretch, so that no peak is lost.
    fn points(&self, run: &Run<'_>) -> Vec<(f64, f64)> {
        let column = (self.column)(run);
        let stretch = column.len().div_ceil(300).max(1);
        let mut points = Vec::new();
        for (chunk, values) in column.chunks(stretch).enumerate() {
            let highest = values.iter().enumerate().filter_map(|(n, v)| Some(((*v)?, n))).max();
            if let Some((value, n)) = highest {
                points.push(((chunk * stretch + n) as f64, value as f64));
            }
        }
        points
    }
}

/// Whether a run has any memory column.
fn able(run: &Run<'_>) -> bool {
    QUANTITIES.iter().any(|quantity| quantity.peak(run).is_some())
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let runs = data.drawn(FIGURE.id, MAX_MULTIPLES, able);
    let keys: Vec<_> = QUANTITIES
        .iter()
        .filter(|quantity| runs.iter().any(|run| quantity.peak(run).is_some()))
        .map(|quantity| (Key::Line(quantity.ink), quantity.name.to_owned()))
        .collect();
    let top = legend(canvas, 0.0, &keys) + 12.0;
    let highest = runs
        .iter()
        .flat_map(|run| QUANTITIES.iter().filter_map(|quantity| quantity.peak(run)))
        .max()
        .unwrap_or(1) as f64;
    let unit = byte_unit(highest);
    let (places, height) = lay_out(canvas, top, runs.len(), 300.0, 220.0);
    for (run, place) in runs.into_iter().zip(places) {
        let last = run.steps.step.len().saturating_sub(1) as u32;
        let x_axis = Axis::whole("forward pass", 0, last, (place.w / 75.0) as usize);
        // All runs share one scale, so that panels compare.
        let y_axis = Axis::linear(unit.name, 0.0, highest / unit.factor, 4);
        let room = place.w - 40.0;
        let name = run.fitted(room, |text| bold_width(text, LABEL));
        let panel = Panel::draw(canvas, place, &name, &x_axis, &y_axis);
        for quantity in &QUANTITIES {
            let mut points: Vec<_> = quantity
                .points(run)
                .into_iter()
                .map(|(x, y)| (panel.x.at(x), panel.y.at(y / unit.factor)))
                .collect();
            if let [(x, y)] = points[..] {
                points = vec![(x - 10.0, y), (x + 10.0, y)];
            }
            canvas.line(&points, quantity.ink, 1.8);
        }
    }
    top + height
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "Memory after each forward pass: what the device's memory pools hand out, what they hold, and \
         what the process occupies. Peaks within a pass are not seen. All panels share one scale.",
    );
    for run in data.drawn(FIGURE.id, MAX_MULTIPLES, able) {
        let peaks: Vec<String> = QUANTITIES
            .iter()
            .filter_map(|q| Some(format!("{} {}", bytes(q.peak(run)? as f64), q.name)))
            .collect();
        caption.fact(run, format!("{} peaks at {}.", run.tagged(), crate::format::list(&peaks)));
    }
    caption.note(&drawn_note(data, FIGURE.id, MAX_MULTIPLES, able))
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new().text("Run").number("Weights");
    for quantity in &QUANTITIES {
        table = table.number(&format!("Peak {}", quantity.name));
    }
    for quantity in &QUANTITIES {
        table = table.number(&format!("After the last pass, {}", quantity.name));
    }
    for run in data.runs.iter().filter(|run| able(run)) {
        let show = |v: Option<u64>| v.map_or(NOTHING.into(), |v| bytes(v as f64));
        let mut cells = vec![run.tagged(), bytes(run.manifest.model.bytes as f64)];
        cells.extend(QUANTITIES.iter().map(|q| show(q.peak(run))));
        let last = |q: &Quantity| (q.column)(run).iter().rev().find_map(|v| *v);
        cells.extend(QUANTITIES.iter().map(|q| show(last(q))));
        table.row(cells);
    }
    table.trimmed()
}
