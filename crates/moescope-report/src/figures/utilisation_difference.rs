//! What changed in utilisation between the first run and each other one.

use super::{Caption, Figure, MAX_MULTIPLES, drawn_note};
use crate::canvas::{Canvas, Colours, Heatmap, LABEL, SMALL, bold_width, cell_height, text_width};
use crate::data::{Data, Grid, Run};
use crate::format::{count, fixed, number};
use crate::palette::Ink;
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "utilisation-difference",
    title: "Difference in utilisation",
    section: sections::COMPARED,
    applicable,
    caption,
    draw,
    table,
};

fn applicable(data: &Data<'_>) -> Result<(), String> {
    data.needs_routing("utilisation")?;
    if data.runs.len() < 2 {
        return Err("it takes two runs".into());
    }
    if differences(data).is_empty() {
        return Err("no other run has the same layers and experts as the first".into());
    }
    Ok(())
}

/// Height of the names above a map.
const NAME: f64 = 22.0;

/// Another run against the first: the difference of utilisation by layer and expert, and how
/// many of the differences are larger than their interval.
struct Difference<'d, 'a> {
    run: &'d Run<'a>,
    grid: Grid,
    changed: Option<(usize, usize)>,
}

fn differences<'d, 'a>(data: &'d Data<'a>) -> Vec<Difference<'d, 'a>> {
    data.comparisons
        .iter()
        .filter_map(|comparison| {
            let grid = Grid::from(comparison.difference()?);
            let intervals: Vec<(f64, f64)> = comparison
                .rows
                .iter()
                .filter(|row| row.metric == "utilisation_difference")
                .filter_map(|row| row.interval)
                .collect();
            let apart = intervals.iter().filter(|(low, high)| *low > 0.0 || *high < 0.0).count();
            Some(Difference {
                run: data.runs.get(comparison.other)?,
                grid,
                changed: (!intervals.is_empty()).then_some((apart, intervals.len())),
            })
        })
        .collect()
}

/// Whether a run is compared with the first.
fn able(data: &Data<'_>, run: &Run<'_>) -> bool {
    data.comparisons.iter().any(|comparison| {
        data.runs.get(comparison.other).is_some_and(|other| std::ptr::eq(other, run))
            && comparison.difference().is_some()
    })
}

/// The differences that have a map.
fn drawn<'d, 'a>(data: &'d Data<'a>) -> Vec<Difference<'d, 'a>> {
    let runs = data.drawn(FIGURE.id, MAX_MULTIPLES, |run| able(data, run));
    let mut differences = differences(data);
    differences.retain(|difference| runs.iter().any(|run| std::ptr::eq(*run, difference.run)));
    differences
}

/// Mean absolute difference over all cells, and the largest with its layer and expert.
fn summary(grid: &Grid) -> Option<(f64, &str, usize, f64)> {
    let known: Vec<usize> =
        (0..grid.values.len()).filter(|&n| grid.values[n].is_finite()).collect();
    let mean = known.iter().map(|&n| grid.values[n].abs()).sum::<f64>() / known.len().max(1) as f64;
    let at =
        known.into_iter().max_by(|&a, &b| grid.values[a].abs().total_cmp(&grid.values[b].abs()))?;
    Some((mean, &grid.rows[at / grid.columns], at % grid.columns, grid.values[at]))
}

fn colours(maps: &[Difference<'_, '_>], base: &str) -> Colours {
    let mut sizes: Vec<f64> = maps
        .iter()
        .flat_map(|map| &map.grid.values)
        .filter(|v| v.is_finite())
        .map(|v| v.abs())
        .collect();
    sizes.sort_by(f64::total_cmp);
    let large = sizes.get(sizes.len().saturating_sub(1) * 199 / 200).copied().unwrap_or(0.0);
    // Nothing changed: a scale of one still says so.
    let bound = [0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0]
        .into_iter()
        .find(|bound| *bound >= large)
        .unwrap_or(20.0);
    let bound = if large == 0.0 { 1.0 } else { bound };
    // As short as it can be: 0.2, not 0.200.
    let label = |share: f64, sign: &str| format!("{sign}{}", bound * share);
    Colours {
        low: -bound,
        high: bound,
        log: false,
        diverging: true,
        ticks: vec![
            (-bound, format!("≤ {}", label(1.0, "−"))),
            (-bound / 2.0, label(0.5, "−")),
            (0.0, "0".into()),
            (bound / 2.0, label(0.5, "+")),
            (bound, format!("≥ {}", label(1.0, "+"))),
        ],
        title: format!("share ÷ even share, minus that in {base}; blue (−) less, orange more"),
        mark: None,
    }
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let maps = drawn(data);
    let all = maps.len();
    let base = data.runs[0].fitted(canvas.width - 40.0, |text| text_width(text, SMALL));
    let colours = colours(&maps, &base);
    let mut y = colours.bar(canvas, 0.0);
    let experts = maps.iter().map(|map| map.grid.columns).max().unwrap_or(1);
    let columns = if all > 2 && canvas.width > 600.0 && experts <= 160 { 2 } else { 1 };
    let gap = 28.0;
    let width = (canvas.width - gap * (columns - 1) as f64) / columns as f64;
    for row in maps.chunks(columns) {
        let mut used: f64 = 0.0;
        for (n, Difference { run, grid, .. }) in row.iter().enumerate() {
            let x = n as f64 * (width + gap);
            let name = run.fitted(width, |text| bold_width(text, LABEL));
            canvas.strong(x, y + 14.0, &name, LABEL, Ink::Text);
            let cell = cell_height(grid.rows.len(), if all > 2 { 180.0 } else { 290.0 });
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

fn caption(data: &Data<'_>) -> Caption {
    let base = data.runs.first().map(|run| run.tagged()).unwrap_or_default();
    let mut caption = Caption::new(format!(
        "Utilisation of each run minus that of {base}: orange experts took over load, blue ones \
         (clear losses marked −) lost it. All maps share one scale."
    ));
    for Difference { run, grid, changed } in &drawn(data) {
        let name = run.tagged();
        let Some((mean, layer, expert, largest)) = summary(grid) else { continue };
        if largest == 0.0 {
            caption.fact(run, format!("{name} uses every expert exactly as much as {base} does."));
        } else {
            let mut fact = format!(
                "{name} differs by {} of an even share on average and most at expert {expert} of \
                 layer {layer} ({}{}).",
                number(mean),
                if largest > 0.0 { "+" } else { "" },
                number(largest)
            );
            if let Some((apart, all)) = changed {
                fact.push_str(&format!(
                    " {} of {} experts changed by more than their 95\u{a0}% interval.",
                    count(*apart as u64),
                    count(*all as u64)
                ));
            }
            caption.fact(run, fact);
        }
    }
    caption.note(&drawn_note(data, FIGURE.id, MAX_MULTIPLES, |run| able(data, run)))
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new()
        .text("Run")
        .number("Layer")
        .number("Mean |difference|")
        .number("Largest gain")
        .text("Expert")
        .number("Largest loss")
        .text("Expert");
    for Difference { run, grid, .. } in differences(data) {
        for (row, layer) in grid.rows.iter().enumerate() {
            let known: Vec<(usize, f64)> =
                grid.row(row).iter().copied().enumerate().filter(|(_, v)| v.is_finite()).collect();
            let (Some(gain), Some(loss)) = (
                known.iter().max_by(|a, b| a.1.total_cmp(&b.1)),
                known.iter().min_by(|a, b| a.1.total_cmp(&b.1)),
            ) else {
                continue;
            };
            let mean = known.iter().map(|(_, v)| v.abs()).sum::<f64>() / known.len() as f64;
            table.row(vec![
                run.tagged(),
                layer.clone(),
                fixed(mean, 3),
                fixed(gain.1.max(0.0), 2),
                gain.0.to_string(),
                fixed(loss.1.min(0.0), 2),
                loss.0.to_string(),
            ]);
        }
    }
    table.note("In units of an even share, against the first run.");
    table.trimmed()
}
