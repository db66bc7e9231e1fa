//! Balance per layer: four statistics of the load, with what chance alone would give.

use super::{Caption, Figure};
use crate::canvas::{Axis, Canvas, Key, Marker, Panel, lay_out, legend, run_keys};
use crate::data::{Data, LayerValue, Run};
use crate::format::{count, interval, number};
use crate::palette::Ink;
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "balance",
    title: "Balance per layer",
    section: sections::LOAD,
    applicable: |data| data.needs_routing("imbalance"),
    caption,
    draw,
    table,
};

/// A range that the values alone decide.
pub(super) const NO_RANGE: (f64, f64) = (f64::INFINITY, f64::NEG_INFINITY);

/// Metric, title, unit; the range a panel always shows.
const PANELS: [(&str, &str, &str, f64, f64); 4] = [
    ("imbalance", "Imbalance", "busiest ÷ mean", 1.0, 1.5),
    ("gini", "Gini", "0 even, 1 one expert", 0.0, 0.2),
    ("effective_experts", "Effective experts", "E if even", NO_RANGE.0, NO_RANGE.1),
    ("dead_experts", "Dead experts", "never used", 0.0, 2.0),
];

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let mut keys = run_keys(canvas, data, |run| run.has("imbalance"));
    keys.push((Key::Reference, "chance: uniform routing of as many tokens".into()));
    let top = legend(canvas, 0.0, &keys) + 12.0;
    let shown: Vec<_> = PANELS.iter().filter(|(metric, ..)| data.has(metric)).collect();
    let (places, height) = lay_out(canvas, top, shown.len(), 300.0, 210.0);
    for (&(metric, title, unit, low, high), place) in shown.into_iter().zip(places) {
        layer_panel(canvas, data, place, metric, title, unit, (low, high), |run| {
            run.per_layer(metric)
        });
    }
    top + height
}

/// A panel over layers: a line per run, its interval, and the chance level of the first run with one.
#[expect(clippy::too_many_arguments, reason = "a panel is that many independent things")]
pub(super) fn layer_panel(
    canvas: &Canvas<'_>,
    data: &Data<'_>,
    place: crate::canvas::Place,
    metric: &'static str,
    title: &str,
    unit: &str,
    always: (f64, f64),
    values: impl Fn(&Run<'_>) -> Vec<LayerValue>,
) -> Panel {
    let lines: Vec<Vec<LayerValue>> = data.runs.iter().map(values).collect();
    let layers = data.layers();
    let (first, last) =
        (layers.first().copied().unwrap_or(0).into(), layers.last().copied().unwrap_or(0).into());
    let (mut low, mut high) = always;
    for value in lines.iter().flatten() {
        let (from, to) = value.interval.unwrap_or((value.value, value.value));
        for v in [Some(value.value), Some(from), Some(to), value.chance].into_iter().flatten() {
            if v.is_finite() {
                (low, high) = (low.min(v), high.max(v));
            }
        }
    }
    let x_axis = Axis::whole("layer", first, last, (place.w / 40.0) as usize);
    let mut y_axis = Axis::linear(unit, low, high, 5);
    if metric == "dead_experts" {
        // There is no half an expert.
        y_axis.ticks.retain(|(value, _)| value.fract() == 0.0);
        y_axis.ticks.iter_mut().for_each(|(value, label)| *label = count(*value as u64));
    }
    let panel = Panel::draw(canvas, place, title, &x_axis, &y_axis);

    let chance: Vec<(f64, f64)> = lines
        .iter()
        .map(|line| {
            line.iter().filter_map(|v| Some((f64::from(v.layer), v.chance?))).collect::<Vec<_>>()
        })
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    panel.reference(canvas, &chance);

    // With many layers markers would run into each other: every n-th carries one.
    let room = (panel.x.to - panel.x.from) / layers.len().max(1) as f64;
    let every = (9.0 / room.max(0.1)).ceil().max(1.0) as usize;
    // Runs stand a little beside each other: equal ones would hide all but the last.
    let drawn = lines.iter().filter(|line| !line.is_empty()).count();
    let beside = (room * 0.6 / drawn.max(1) as f64).min(6.5);
    let mut place = -beside * drawn.saturating_sub(1) as f64 / 2.0;
    for (n, line) in lines.iter().enumerate().filter(|(_, line)| !line.is_empty()) {
        let (ink, marker) = (Ink::series(n), Marker::series(n));
        let shift = place;
        place += beside;
        let at = |v: &LayerValue| (panel.x.at(v.layer.into()) + shift, panel.y.at(v.value));
        let points: Vec<_> = line.iter().map(at).collect();
        if data.runs.len() <= 3 {
            for value in line {
                if let Some((from, to)) = value.interval {
                    let x = panel.x.at(value.layer.into()) + shift;
                    canvas.line(&[(x, panel.y.at(from)), (x, panel.y.at(to))], ink, 1.0);
                }
            }
        }
        canvas.line(&points, ink, 1.8);
        for (x, y) in points.iter().skip(n % every).step_by(every) {
            canvas.marker(*x, *y, 6.0, marker, ink);
        }
    }
    panel
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "How evenly each layer spreads the tokens over its experts. The dashed line is what perfectly \
         even routing would show with as many tokens, by sampling noise alone: a layer is unbalanced \
         as far as it is away from that line. Imbalance looks at the busiest expert alone, the others at all: \
         they may name different layers. Effective experts are as many even ones as would have the same \
         entropy of use.",
    );
    for run in &data.runs {
        let chance = |value: &LayerValue| {
            value.chance.map_or(String::new(), |chance| format!(" (by chance {})", number(chance)))
        };
        // As the findings have it: the fewest effective experts for what chance would give.
        let ratio = |value: &LayerValue| value.value / value.chance.unwrap_or(f64::NAN);
        let effective = run.per_layer("effective_experts");
        let worst = effective.iter().min_by(|a, b| ratio(a).total_cmp(&ratio(b)));
        let busiest = run.per_layer("imbalance");
        let busiest = busiest.iter().max_by(|a, b| a.value.total_cmp(&b.value));
        if let (Some(worst), Some(busiest)) = (worst, busiest) {
            let experts = run.layers().iter().find(|layer| layer.layer == worst.layer);
            caption.fact(run, format!(
                "{} as a whole is least balanced in layer {}: its {} experts are used like {} even ones{}. \
                 The busiest single expert is in layer {}, with {} times the mean load{}.",
                run.tagged(),
                worst.layer,
                experts.map_or(0, |layer| layer.experts),
                number(worst.value),
                chance(worst),
                busiest.layer,
                number(busiest.value),
                chance(busiest)
            ));
        }
    }
    if data.runs.len() <= 3 {
        caption = caption.note(" Vertical bars are 95\u{a0}% intervals over sequences.");
    }
    caption
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new().text("Run").number("Layer");
    let shown: Vec<_> = PANELS.iter().filter(|(metric, ..)| data.has(metric)).collect();
    for (metric, title, ..) in &shown {
        table = table.number(title);
        if *metric == "imbalance" {
            table = table.number("95\u{a0}% interval");
        }
        table = table.number("by chance");
    }
    for run in &data.runs {
        let columns: Vec<_> = shown.iter().map(|(metric, ..)| run.per_layer(metric)).collect();
        for layer in run.layers() {
            let mut cells = vec![run.tagged(), layer.layer.to_string()];
            for ((metric, ..), values) in shown.iter().zip(&columns) {
                let value = values.iter().find(|v| v.layer == layer.layer);
                let show = |v: Option<f64>| v.map_or(crate::format::NOTHING.into(), number);
                cells.push(show(value.map(|v| v.value)));
                if *metric == "imbalance" {
                    cells.push(interval(value.and_then(|v| v.interval)));
                }
                cells.push(show(value.and_then(|v| v.chance)));
            }
            table.row(cells);
        }
    }
    table.trimmed()
}
