//! Domain x expert: which experts a domain uses, in the layer that a finding names or where domains differ most.

use moescope_trace::manifest::MoeLayer;

use super::{Caption, Figure, drawn_note};
use crate::canvas::{Canvas, Colours, Heatmap, LABEL, bold_width};
use crate::data::{Data, Grid, Run};
use crate::format::percent;
use crate::palette::Ink;
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "specialisation",
    title: "Experts by domain",
    section: sections::SPECIALISATION,
    applicable,
    caption,
    draw,
    table,
};

/// Height of the name above a map.
const NAME: f64 = 22.0;

/// Runs with a map of their own; maps are large and the runs of one model look alike.
const MAX_MAPS: usize = 4;

fn applicable(data: &Data<'_>) -> Result<(), String> {
    data.needs_routing("domain_specialisation")?;
    if data.runs.iter().any(able) {
        Ok(())
    } else {
        Err("the prompts are of one domain only".into())
    }
}

/// The chosen layer of a run, experts ordered by the domain that uses them most.
struct Chosen {
    layer: u16,
    grid: Grid,
    /// Expert of each column.
    experts: Vec<usize>,
    chance: f64,
}

/// How different the domains of a layer are: the mean distance of a domain's use from the mean use.
fn spread(grid: &Grid) -> f64 {
    let domains = grid.rows.len();
    (0..grid.columns)
        .map(|expert| {
            let shares: Vec<f64> = (0..domains).map(|row| grid.row(row)[expert]).collect();
            let mean = shares.iter().sum::<f64>() / domains as f64;
            shares.iter().map(|share| (share - mean).abs()).sum::<f64>()
        })
        .sum::<f64>()
        / domains as f64
}

fn able(run: &Run<'_>) -> bool {
    run.layers().iter().any(|layer| run.specialisation(layer).is_some())
}

fn chosen(data: &Data<'_>, run: &Run<'_>) -> Option<Chosen> {
    let layer_of = |layer: &MoeLayer| Some((layer.layer, run.specialisation(layer)?));
    let named = data.named_layer(FIGURE.id, run);
    let (layer, (grid, chance)) = run
        .layers()
        .iter()
        .filter(|layer| named.is_none_or(|named| named == layer.layer))
        .filter_map(layer_of)
        // Relative to k, so that layers of different k compare.
        .max_by(|(_, (a, _)), (_, (b, _))| spread(a).total_cmp(&spread(b)))?;
    // Experts of one domain side by side make its speciality a block.
    let favourite = |expert: usize| -> (usize, f64) {
        (0..grid.rows.len())
            .map(|row| (row, grid.row(row)[expert]))
            .fold((0, f64::MIN), |best, next| if next.1 > best.1 { next } else { best })
    };
    let mut experts: Vec<usize> = (0..grid.columns).collect();
    experts.sort_by(|&a, &b| {
        let (domain_a, share_a) = favourite(a);
        let (domain_b, share_b) = favourite(b);
        domain_a.cmp(&domain_b).then(share_b.total_cmp(&share_a)).then(a.cmp(&b))
    });
    let values = (0..grid.rows.len())
        .flat_map(|row| experts.iter().map(move |&expert| (row, expert)))
        .map(|(row, expert)| grid.row(row)[expert])
        .collect();
    let grid = Grid { values, ..grid };
    Some(Chosen { layer, grid, experts, chance })
}

fn drawn<'d, 'a>(data: &'d Data<'a>) -> Vec<(&'d Run<'a>, Chosen)> {
    let runs = data.drawn(FIGURE.id, MAX_MAPS, able).into_iter();
    runs.filter_map(|run| Some((run, chosen(data, run)?))).collect()
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let maps = drawn(data);
    let highest = maps.iter().flat_map(|(_, map)| &map.grid.values).copied().fold(0.0, f64::max);
    let high = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8].into_iter().find(|h| *h >= highest);
    let high = high.unwrap_or(1.0);
    let mut ticks: Vec<(f64, String)> = [0.0, 0.5, 1.0]
        .into_iter()
        .map(|share| (share * high, percent_label(share * high)))
        .collect();
    if let Some((_, map)) = maps.first()
        && map.chance < 0.42 * high
        && map.chance > 0.08 * high
    {
        ticks.insert(1, (map.chance, "k/E".into()));
    }
    let colours = Colours {
        low: 0.0,
        high,
        log: false,
        diverging: false,
        ticks,
        title: "share of the domain's tokens (k/E by chance)".into(),
        mark: None,
    };
    let mut y = colours.bar(canvas, 0.0);
    for (run, map) in &maps {
        let name = run.fitted(canvas.width - 90.0, |text| bold_width(text, LABEL));
        let title = format!("{name}, layer {}", map.layer);
        canvas.strong(0.0, y + 14.0, &title, LABEL, Ink::Text);
        let columns: Vec<String> = map.experts.iter().map(usize::to_string).collect();
        let heatmap = Heatmap {
            grid: &map.grid,
            colours: &colours,
            columns: Some(&columns),
            x_title: "expert, grouped by its main domain",
            y_title: "domain",
            numbered: false,
        };
        // Every domain has its name beside it.
        y += NAME + heatmap.draw(canvas, 0.0, y + NAME, canvas.width, 18.0) + 14.0;
    }
    y - 8.0
}

fn percent_label(share: f64) -> String {
    format!("{} %", crate::format::significant(share * 100.0, 2))
}

/// (domain, expert, share) of the most specialised cell.
fn strongest(map: &Chosen) -> Option<(&str, usize, f64)> {
    let at = (0..map.grid.values.len())
        .max_by(|&a, &b| map.grid.values[a].total_cmp(&map.grid.values[b]))?;
    let (row, column) = (at / map.grid.columns, at % map.grid.columns);
    Some((&map.grid.rows[row], map.experts[column], map.grid.values[at]))
}

fn caption(data: &Data<'_>) -> Caption {
    let maps = drawn(data);
    let mut caption = Caption::new(
        "The layer that a finding names, else the one of each run in which the domains differ most. A bright block is a group of experts \
         that one domain uses and the others do not; a router blind to the domain shows rows that all \
         look the same.",
    );
    for (run, map) in &maps {
        if let Some((domain, expert, share)) = strongest(map) {
            caption.fact(run, format!(
                "In {}, layer {}, expert {expert} serves {} of the tokens of {domain} (by chance {}).",
                run.tagged(),
                map.layer,
                percent(share),
                percent(map.chance)
            ));
        }
    }
    caption.note(&drawn_note(data, FIGURE.id, MAX_MAPS, able))
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new()
        .text("Run")
        .number("Layer")
        .text("Domain")
        .text("Experts it uses most (share of its tokens)")
        .number("By chance");
    for run in &data.runs {
        let Some(map) = chosen(data, run) else { continue };
        for (row, domain) in map.grid.rows.iter().enumerate() {
            let mut order: Vec<(usize, f64)> =
                map.experts.iter().copied().zip(map.grid.row(row).iter().copied()).collect();
            order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let top: Vec<String> = order
                .iter()
                .take(4)
                .map(|(e, share)| format!("{e} ({})", percent(*share)))
                .collect();
            table.row(vec![
                run.tagged(),
                map.layer.to_string(),
                domain.clone(),
                top.join(", "),
                percent(map.chance),
            ]);
        }
    }
    table.trimmed()
}
