//! Whether two runs route the same tokens to the same experts, layer by layer.

use moescope_analysis::Comparison;

use super::balance::layer_panel;
use super::{Caption, Figure};
use crate::canvas::{Canvas, Key, lay_out, legend, run_keys};
use crate::data::{Data, LayerValue, Run};
use crate::format::{NOTHING, percent};
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "overlap",
    title: "The same tokens, the same experts?",
    section: sections::COMPARED,
    applicable,
    caption,
    draw,
    table,
};

/// Metric, title, unit; the range a panel always shows, in percent. Sets of k experts are rarely the same.
const PANELS: [(&str, &str, &str, (f64, f64)); 2] = [
    ("routing_overlap", "Routing overlap", "% of a token's experts", (0.0, 100.0)),
    ("same_experts", "Same set of experts", "% of tokens", (0.0, 10.0)),
];

fn applicable(data: &Data<'_>) -> Result<(), String> {
    data.needs_routing("utilisation")?;
    if data.runs.len() < 2 {
        return Err("it takes two runs".into());
    }
    if data.comparisons.iter().any(|c| c.by_layer("routing_overlap").next().is_some()) {
        Ok(())
    } else {
        Err("no two runs were compared token by token".into())
    }
}

/// The comparison whose other run this is.
fn comparison<'d>(data: &'d Data<'_>, run: &Run<'_>) -> Option<&'d Comparison> {
    data.comparisons
        .iter()
        .find(|c| data.runs.get(c.other).is_some_and(|other| std::ptr::eq(other, run)))
}

fn values(data: &Data<'_>, run: &Run<'_>, metric: &str) -> Vec<LayerValue> {
    let Some(comparison) = comparison(data, run) else { return Vec::new() };
    comparison
        .by_layer(metric)
        .map(|(layer, row)| LayerValue {
            layer,
            value: row.value,
            interval: row.interval,
            chance: row.chance,
        })
        .collect()
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let mut keys = run_keys(canvas, data, |run| !values(data, run, PANELS[0].0).is_empty());
    keys.push((Key::Reference, "chance".into()));
    let top = legend(canvas, 0.0, &keys) + 12.0;
    let (places, height) = lay_out(canvas, top, PANELS.len(), 300.0, 210.0);
    for ((metric, title, unit, range), place) in PANELS.into_iter().zip(places) {
        layer_panel(canvas, data, place, metric, title, unit, range, |run| {
            values(data, run, metric).into_iter().map(LayerValue::in_percent).collect()
        });
    }
    top + height
}

fn caption(data: &Data<'_>) -> Caption {
    let base = data.runs.first().map(Run::tagged).unwrap_or_default();
    let mut caption = Caption::new(format!(
        "Each token that both runs read after the same beginning, its experts set against those in \
         {base}. At 100\u{a0}% the two route alike; at the dashed line they agree as often as chance has it."
    ));
    for run in &data.runs {
        let layers = values(data, run, "routing_overlap");
        if let Some(least) = layers.iter().min_by(|a, b| a.value.total_cmp(&b.value)) {
            let overall = comparison(data, run).and_then(|c| c.overall("routing_overlap"));
            let overall = overall.map_or(NOTHING.into(), |row| percent(row.value));
            let most = layers.iter().map(|layer| layer.value).fold(f64::MIN, f64::max);
            let least = if least.value < most {
                format!("least in layer {} ({})", least.layer, percent(least.value))
            } else {
                "in every layer alike".into()
            };
            caption
                .fact(run, format!("{} shares {overall} of the experts, {least}.", run.tagged()));
        }
    }
    caption
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new().text("Run").number("Layer");
    for (_, title, ..) in PANELS {
        table = table.number(title).number("95\u{a0}% interval").number("By chance");
    }
    for run in &data.runs {
        let columns = PANELS.map(|(metric, ..)| values(data, run, metric));
        for layer in columns[0].iter().map(|value| value.layer) {
            let mut cells = vec![run.tagged(), layer.to_string()];
            for values in &columns {
                let value = values.iter().find(|value| value.layer == layer);
                let show = |v: Option<f64>| v.map_or(NOTHING.into(), percent);
                cells.push(show(value.map(|v| v.value)));
                cells.push(match value.and_then(|v| v.interval) {
                    Some((low, high)) => format!("{} – {}", percent(low), percent(high)),
                    None => NOTHING.into(),
                });
                cells.push(show(value.and_then(|v| v.chance)));
            }
            table.row(cells);
        }
    }
    table.trimmed()
}
