//! How differently two domains use the experts.

use super::{Caption, Figure, drawn_note};
use crate::canvas::{Canvas, Colours, Heatmap, LABEL, bold_width};
use crate::data::{Data, Grid, Run};
use crate::format::{number, significant};
use crate::palette::Ink;
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "divergence",
    title: "Distance between domains",
    section: sections::SPECIALISATION,
    applicable: |data| {
        data.needs_routing("domain_divergence").map_err(|reason| match reason.as_str() {
            "not recorded" => "the prompts are of one domain only".into(),
            _ => reason,
        })
    },
    caption,
    draw,
    table,
};

/// Maps beyond this repeat each other.
const MAX_MAPS: usize = 4;

/// Divergence of each pair of domains, mean over layers; rows and columns in the order of `domains`.
struct Distances {
    grid: Grid,
    /// Mean chance level over pairs and layers.
    chance: f64,
}

fn distances(run: &Run<'_>) -> Option<Distances> {
    let domains = run.domains.len();
    let mut sums = vec![(0.0, 0usize); domains * domains];
    let (mut chance, mut chances) = (0.0, 0usize);
    for layer in run.layers() {
        for (i, j, row) in run.pairs("domain_divergence", layer.layer) {
            let (i, j) = (usize::from(i), usize::from(j));
            if i >= domains || j >= domains || !row.value.is_finite() {
                continue;
            }
            for at in [i * domains + j, j * domains + i] {
                sums[at].0 += row.value;
                sums[at].1 += 1;
            }
            if let Some(level) = row.chance {
                chance += level;
                chances += 1;
            }
        }
    }
    let mean = |(sum, n): &(f64, usize)| if *n == 0 { f64::NAN } else { sum / *n as f64 };
    let values: Vec<f64> = sums.iter().map(mean).collect();
    if values.iter().all(|value| value.is_nan()) {
        return None;
    }
    let rows = run.domains.iter().map(|(_, shown)| shown.clone()).collect();
    let grid = Grid { rows, columns: domains, values };
    Some(Distances { grid, chance: chance / chances.max(1) as f64 })
}

fn able(run: &Run<'_>) -> bool {
    distances(run).is_some()
}

/// (first, second, distance) of the closest and of the furthest pair.
fn extremes(grid: &Grid) -> Option<[(usize, usize, f64); 2]> {
    let pairs = || {
        (0..grid.rows.len())
            .flat_map(|i| (0..i).map(move |j| (j, i)))
            .map(|(i, j)| (i, j, grid.row(i)[j]))
            .filter(|(_, _, value)| value.is_finite())
    };
    let closest = pairs().min_by(|a, b| a.2.total_cmp(&b.2))?;
    let furthest = pairs().max_by(|a, b| a.2.total_cmp(&b.2))?;
    Some([closest, furthest])
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let maps: Vec<_> = data
        .drawn(FIGURE.id, MAX_MAPS, able)
        .into_iter()
        .filter_map(|run| Some((run, distances(run)?)))
        .collect();
    let values = maps.iter().flat_map(|(_, map)| &map.grid.values).copied();
    let high = values.filter(|value| value.is_finite()).fold(1e-6, f64::max);
    let ticks = [0.0, 0.5, 1.0].map(|share| (share * high, significant(share * high, 2))).to_vec();
    let chances: Vec<f64> = maps.iter().map(|(_, map)| map.chance).collect();
    let chance = chances.iter().sum::<f64>() / chances.len().max(1) as f64;
    let colours = Colours {
        low: 0.0,
        high,
        log: false,
        diverging: false,
        ticks,
        title: format!(
            "Jensen-Shannon divergence, nats (0 alike, at most 0.69; ▼ chance: two samples of one domain, {})",
            significant(chance, 2)
        ),
        mark: Some(chance),
    };
    let mut y = colours.bar(canvas, 0.0);
    let columns = if maps.len() > 1 && canvas.width > 600.0 { 2 } else { 1 };
    let gap = 28.0;
    let width = (canvas.width - gap * (columns - 1) as f64) / columns as f64;
    let width = if columns == 1 { width.min(620.0) } else { width };
    for row in maps.chunks(columns) {
        let mut used: f64 = 0.0;
        for (n, (run, map)) in row.iter().enumerate() {
            let x = n as f64 * (width + gap);
            let name = run.fitted(width, |text| bold_width(text, LABEL));
            canvas.strong(x, y + 14.0, &name, LABEL, Ink::Text);
            let numbers: Vec<String> = (1..=map.grid.columns).map(|n| n.to_string()).collect();
            let grid = &map.grid;
            let map = Heatmap {
                grid,
                colours: &colours,
                columns: Some(&numbers),
                x_title: "domain, numbered as on the left",
                y_title: "domain",
                numbered: true,
            };
            let cell = (300.0 / grid.rows.len() as f64).clamp(13.0, 24.0);
            used = used.max(map.draw(canvas, x, y + 22.0, width, cell));
        }
        y += 22.0 + used + 14.0;
    }
    y - 8.0
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "How far apart two domains are in the experts they use, mean over layers. Domains whose row is dark \
         share their experts with the others; a bright row is a domain with experts of its own.",
    );
    for run in &data.runs {
        let Some(map) = distances(run) else { continue };
        if let Some([closest, furthest]) = extremes(&map.grid) {
            let name = |n: usize| &map.grid.rows[n];
            caption.fact(run, format!(
                "{}: closest are {} and {} ({} nats), furthest {} and {} ({} nats); two samples of one domain \
                 would show {}.",
                run.tagged(),
                name(closest.0),
                name(closest.1),
                number(closest.2),
                name(furthest.0),
                name(furthest.1),
                number(furthest.2),
                number(map.chance)
            ));
        }
    }
    caption.note(&drawn_note(data, FIGURE.id, MAX_MAPS, able))
}

fn table(data: &Data<'_>) -> Table {
    let mut table =
        Table::new().text("Run").text("Domain").text("Domain").number("Divergence, nats");
    for run in &data.runs {
        let Some(map) = distances(run) else { continue };
        for i in 0..map.grid.rows.len() {
            for j in i + 1..map.grid.rows.len() {
                let name = |n: usize| map.grid.rows[n].clone();
                table.row(vec![run.tagged(), name(i), name(j), number(map.grid.row(i)[j])]);
            }
        }
    }
    table.note("Mean over layers.");
    table.trimmed()
}
