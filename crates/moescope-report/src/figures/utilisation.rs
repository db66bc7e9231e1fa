//! Layer x expert utilisation: which experts carry the load.

use super::{Caption, Figure, MAX_MULTIPLES, drawn_note};
use crate::canvas::{Canvas, Colours, Heatmap, LABEL, bold_width, cell_height};
use crate::data::{Data, Grid, Run};
use crate::format::{count, fixed, number};
use crate::palette::Ink;
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "utilisation",
    title: "Expert utilisation",
    section: sections::LOAD,
    applicable: |data| data.needs_routing("utilisation"),
    caption,
    draw,
    table,
};

/// Height of the name above a map.
const NAME: f64 = 22.0;

/// Tables of single cells get no larger than this; beyond, a line per layer sums up.
const MAX_CELLS: usize = 3000;

/// Colours from 1/h to h on a logarithmic scale; 1, an even share, is the middle.
fn colours(grids: &[Grid]) -> Colours {
    let mut values: Vec<f64> =
        grids.iter().flat_map(|grid| &grid.values).copied().filter(|v| *v > 0.0).collect();
    values.sort_by(f64::total_cmp);
    // The scale is not stretched for the busiest one in two hundred cells.
    let busiest = values.get(values.len().saturating_sub(1) * 199 / 200).copied().unwrap_or(2.0);
    let steps = busiest.log2().ceil().clamp(1.0, 4.0) as i32;
    let high = 2f64.powi(steps);
    let name = |power: i32| match power {
        -4 => "1/16".to_owned(),
        -3 => "⅛".into(),
        -2 => "¼".into(),
        -1 => "½".into(),
        _ => format!("{}", 1 << power),
    };
    let ticks = (-steps..=steps)
        .map(|power| {
            let label = match power {
                p if p == -steps => format!("≤ {}", name(p)),
                p if p == steps => format!("≥ {}", name(p)),
                p => name(p),
            };
            (2f64.powi(power), label)
        })
        .collect();
    Colours {
        low: 1.0 / high,
        high,
        log: true,
        diverging: false,
        ticks,
        title: "share of the tokens ÷ an even share (1 = uniform)".into(),
        mark: None,
    }
}

fn able(run: &Run<'_>) -> bool {
    run.has("utilisation")
}

fn drawn<'d, 'a>(data: &'d Data<'a>) -> Vec<&'d Run<'a>> {
    data.drawn(FIGURE.id, MAX_MULTIPLES, able)
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let maps: Vec<_> =
        drawn(data).into_iter().filter_map(|run| Some((run, run.utilisation()?))).collect();
    let grids: Vec<Grid> = maps.iter().map(|(_, grid)| grid.clone()).collect();
    let colours = colours(&grids);
    let mut y = colours.bar(canvas, 0.0);
    // More than two maps stand two to a row where a cell keeps two pixels.
    let experts = grids.iter().map(|grid| grid.columns).max().unwrap_or(1);
    let columns = if maps.len() > 2 && canvas.width > 600.0 && experts <= 160 { 2 } else { 1 };
    let gap = 28.0;
    let width = (canvas.width - gap * (columns - 1) as f64) / columns as f64;
    for row in maps.chunks(columns) {
        let mut used: f64 = 0.0;
        for (n, (run, grid)) in row.iter().enumerate() {
            let x = n as f64 * (width + gap);
            let name = run.fitted(width, |text| bold_width(text, LABEL));
            canvas.strong(x, y + 14.0, &name, LABEL, Ink::Text);
            let cell = cell_height(grid.rows.len(), if maps.len() > 2 { 180.0 } else { 290.0 });
            let map = Heatmap {
                grid,
                colours: &colours,
                columns: None,
                x_title: "expert",
                y_title: "layer",
                numbered: false,
            };
            used = used.max(map.draw(canvas, x, y + NAME, width, cell));
        }
        y += NAME + used + 14.0;
    }
    y - 8.0
}

/// (layer name, expert, value) of the busiest expert.
fn busiest(grid: &Grid) -> Option<(&str, usize, f64)> {
    let at = (0..grid.values.len())
        .filter(|&n| grid.values[n].is_finite())
        .max_by(|&a, &b| grid.values[a].total_cmp(&grid.values[b]))?;
    Some((&grid.rows[at / grid.columns], at % grid.columns, grid.values[at]))
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "Each cell is one expert of one layer, coloured by its share of the tokens relative to an \
         even share. An even router is one colour throughout; bright cells carry more than their \
         share, dark ones less.",
    );
    for run in drawn(data) {
        let Some(grid) = run.utilisation() else { continue };
        let known = grid.values.iter().filter(|v| v.is_finite()).count() as u64;
        let unused = grid.values.iter().filter(|v| **v == 0.0).count() as u64;
        if let Some((layer, expert, value)) = busiest(&grid) {
            let unused = match unused {
                0 => "every expert is used".into(),
                1 => format!("1 of {} experts is never used", count(known)),
                n => format!("{} of {} experts are never used", count(n), count(known)),
            };
            caption.fact(run, format!(
                "In {}, expert {expert} of layer {layer} is the busiest with {} times an even share; \
                 {unused}.",
                run.tagged(),
                number(value)
            ));
        }
    }
    caption.note(&drawn_note(data, FIGURE.id, MAX_MULTIPLES, able))
}

fn table(data: &Data<'_>) -> Table {
    let grids: Vec<_> =
        data.runs.iter().filter_map(|run| Some((run.tagged(), run.utilisation()?))).collect();
    let experts = grids.iter().map(|(_, grid)| grid.columns).max().unwrap_or(0);
    let cells: usize = grids.iter().map(|(_, grid)| grid.values.len()).sum();
    if experts <= 64 && cells <= MAX_CELLS {
        let mut table = Table::new().text("Run").number("Layer");
        for expert in 0..experts {
            table = table.number(&expert.to_string());
        }
        for (run, grid) in &grids {
            for (row, layer) in grid.rows.iter().enumerate() {
                let mut cells = vec![run.clone(), layer.clone()];
                let values = grid.row(row).iter().map(|v| fixed(*v, 2));
                cells.extend(values.chain(std::iter::repeat(String::new())).take(experts));
                table.row(cells);
            }
        }
        table.note("A column per expert; share of the tokens relative to an even share.");
        return table.trimmed();
    }
    let mut table = Table::new()
        .text("Run")
        .number("Layer")
        .number("Least used")
        .number("Median")
        .number("Most used")
        .number("Never used")
        .text("Busiest experts");
    for (run, grid) in &grids {
        for (row, layer) in grid.rows.iter().enumerate() {
            let mut order: Vec<(usize, f64)> =
                grid.row(row).iter().copied().enumerate().filter(|(_, v)| v.is_finite()).collect();
            if order.is_empty() {
                continue;
            }
            order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let top: Vec<String> =
                order.iter().take(3).map(|(e, v)| format!("{e} ({})", fixed(*v, 2))).collect();
            table.row(vec![
                run.clone(),
                layer.clone(),
                fixed(order[order.len() - 1].1, 2),
                fixed(order[order.len() / 2].1, 2),
                fixed(order[0].1, 2),
                order.iter().filter(|(_, v)| *v == 0.0).count().to_string(),
                top.join(", "),
            ]);
        }
    }
    table.note(
        "Share of the tokens relative to an even share; `moescope analyze` prints every expert.",
    );
    table.trimmed()
}
