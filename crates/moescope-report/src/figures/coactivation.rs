//! Which experts of a layer run for the same token.

use moescope_analysis::{Coactivation, clustered_order};

use super::{Caption, Figure, drawn_note};
use crate::canvas::{Canvas, Colours, Heatmap, LABEL, bold_width};
use crate::data::{Data, Grid, Run};
use crate::format::number;
use crate::palette::Ink;
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "coactivation",
    title: "Experts that run together",
    section: sections::STRUCTURE,
    applicable: |data| {
        data.needs_routing("coactivation_lift")?;
        match data.runs.iter().any(able) {
            true => Ok(()),
            false => Err("one expert per token has no partner".into()),
        }
    },
    caption,
    draw,
    table,
};

/// Maps beyond this repeat each other.
const MAX_MAPS: usize = 4;

fn able(run: &Run<'_>) -> bool {
    run.coactivation().iter().any(has_pairs)
}

fn has_pairs(layer: &Coactivation) -> bool {
    layer.top_k > 1 && layer.experts > 1
}

/// The layer that a finding names, else the one with the most excess co-activation.
fn chosen<'a>(data: &Data<'_>, run: &Run<'a>) -> Option<&'a Coactivation> {
    let excess = run.per_layer("coactivation_excess");
    let of = |layer: u16| {
        let found = excess.iter().find(|value| value.layer == layer);
        found.map_or(0.0, |value| value.value - value.chance.unwrap_or(0.0))
    };
    let named = data.named_layer(FIGURE.id, run);
    run.coactivation()
        .iter()
        .filter(|layer| has_pairs(layer) && named.is_none_or(|named| named == layer.layer))
        .max_by(|a, b| of(a.layer).total_cmp(&of(b.layer)).then(b.layer.cmp(&a.layer)))
}

/// Lift over its level under uniform routing; NaN where too few tokens could have shown one.
fn lift(pairs: &Coactivation, i: usize, j: usize) -> f64 {
    match pairs.lift(i, j) {
        Some(lift) if i != j && pairs.meets_often(i, j) => lift / pairs.chance_lift(),
        _ => f64::NAN,
    }
}

/// Natural logarithms of the lifts with experts in clustered order, and that order.
fn map_of(pairs: &Coactivation) -> (Grid, Vec<usize>) {
    // A pair that never ran together is as far apart as one can be.
    let log = |i: usize, j: usize| lift(pairs, i, j).max(1.0 / 64.0).ln();
    let order = clustered_order(pairs.experts, |i, j| -log(i, j));
    let values = order
        .iter()
        .flat_map(|&i| order.iter().map(move |&j| (i, j)))
        .map(|(i, j)| if lift(pairs, i, j).is_nan() { f64::NAN } else { log(i, j) })
        .collect();
    let rows = order.iter().map(usize::to_string).collect();
    (Grid { rows, columns: pairs.experts, values }, order)
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let bound = 4.0f64;
    let tick = |factor: f64, label: &str| (factor.ln(), label.to_owned());
    let colours = Colours {
        low: -bound.ln(),
        high: bound.ln(),
        log: false,
        diverging: true,
        ticks: vec![
            tick(0.25, "≤ ¼"),
            tick(0.5, "½"),
            tick(1.0, "1"),
            tick(2.0, "2"),
            tick(4.0, "≥ 4"),
        ],
        title: "joint tokens ÷ what popularity alone gives; orange together, blue (−) apart".into(),
        mark: None,
    };
    let mut y = colours.bar(canvas, 0.0);
    let maps: Vec<_> = data
        .drawn(FIGURE.id, MAX_MAPS, able)
        .into_iter()
        .filter_map(|run| Some((run, chosen(data, run)?)))
        .collect();
    let columns = if maps.len() > 1 && canvas.width > 600.0 { 2 } else { 1 };
    let gap = 28.0;
    let width = (canvas.width - gap * (columns - 1) as f64) / columns as f64;
    let width = width.min(560.0);
    for row in maps.chunks(columns) {
        let mut used: f64 = 0.0;
        for (n, (run, pairs)) in row.iter().enumerate() {
            let x = n as f64 * (width + gap);
            let name = run.fitted(width - 80.0, |text| bold_width(text, LABEL));
            let title = format!("{name}, layer {}", pairs.layer);
            canvas.strong(x, y + 14.0, &title, LABEL, Ink::Text);
            let (grid, order) = map_of(pairs);
            let names: Vec<String> = order.iter().map(usize::to_string).collect();
            let map = Heatmap {
                grid: &grid,
                colours: &colours,
                columns: Some(&names),
                x_title: "expert, in the order of the rows",
                y_title: "expert, clustered",
                numbered: false,
            };
            let cell = ((width - 30.0) / pairs.experts as f64).clamp(1.2, 24.0);
            used = used.max(map.draw(canvas, x, y + 22.0, width, cell));
        }
        y += 22.0 + used + 14.0;
    }
    y - 8.0
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(format!(
        "How often two experts run for the same token, over what their popularity alone would give (1), in \
         the layer that a finding names, else the one where that differs most. Experts that run together stand together: an orange block is a \
         team, blue experts stand in for each other. Grey pairs would have met fewer than \
         {} times. Below the pair of the layer that stands out most on one half of the sequences, measured \
         on the other half; the map is of all sequences.",
        Coactivation::LEAST_EXPECTED
    ));
    for run in data.drawn(FIGURE.id, MAX_MAPS, able) {
        let Some(pairs) = chosen(data, run) else { continue };
        let seen = |i: u16, j: u16| pairs.meets_often(i.into(), j.into());
        let Some(pair) = run.strongest_pair("coactivation_lift", pairs.layer, seen) else {
            caption
                .fact(run, format!("{}, layer {}: no pair stands out.", run.tagged(), pairs.layer));
            continue;
        };
        let interval = pair.interval.map_or_else(String::new, |(low, high)| {
            format!(" (95\u{a0}% interval {} to {})", number(low), number(high))
        });
        caption.fact(run, format!(
                "{}, layer {}: experts {} and {} run together {} times as often as by popularity{interval}.",
                run.tagged(),
                pairs.layer,
                pair.i,
                pair.j,
                number(pair.ratio)
            ));
    }
    caption.note(&drawn_note(data, FIGURE.id, MAX_MAPS, able))
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new()
        .text("Run")
        .number("Layer")
        .number("Expert")
        .number("Expert")
        .number("Joint tokens ÷ by popularity");
    for run in &data.runs {
        let Some(pairs) = chosen(data, run) else { continue };
        let mut found: Vec<(usize, usize, f64)> = (0..pairs.experts)
            .flat_map(|i| (i + 1..pairs.experts).map(move |j| (i, j)))
            .map(|(i, j)| (i, j, lift(pairs, i, j)))
            .filter(|(_, _, lift)| lift.is_finite())
            .collect();
        found.sort_by(|a, b| b.2.total_cmp(&a.2));
        for (i, j, lift) in found.into_iter().take(20) {
            let layer = pairs.layer.to_string();
            table.row(vec![run.tagged(), layer, i.to_string(), j.to_string(), number(lift)]);
        }
    }
    table.note("The twenty strongest pairs of a layer, over all sequences: the strongest of many pairs look stronger than they are.");
    table.trimmed()
}
