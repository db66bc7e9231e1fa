//! How sure the router is, layer by layer.

use moescope_analysis::Index;

use super::balance::{NO_RANGE, layer_panel};
use super::{Caption, Figure, missing_note};
use crate::canvas::{Canvas, Key, lay_out, legend, run_keys};
use crate::data::{Data, LayerValue, Run};
use crate::format::{interval, number};
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "confidence",
    title: "Router confidence by layer",
    section: sections::SPECIALISATION,
    applicable: |data| {
        let any = PANELS.iter().any(|panel| data.has(panel.metric));
        if any {
            data.needs_routing(first_recorded(data))
        } else {
            data.needs_routing("router_entropy")
        }
    },
    caption,
    draw,
    table,
};

struct View {
    metric: &'static str,
    rank: Option<u16>,
    title: &'static str,
    unit: &'static str,
}

const PANELS: [View; 3] = [
    View { metric: "router_entropy", rank: None, title: "Entropy", unit: "nats" },
    View { metric: "router_margin", rank: None, title: "Top-k margin", unit: "probability" },
    View {
        metric: "weight_by_rank",
        rank: Some(0),
        title: "Weight of the first expert",
        unit: "share",
    },
];

impl View {
    fn values(&self, run: &Run<'_>) -> Vec<LayerValue> {
        run.per_layer_at(self.metric, self.rank.map(Index::Rank))
    }
}

fn first_recorded(data: &Data<'_>) -> &'static str {
    PANELS.iter().map(|panel| panel.metric).find(|m| data.has(m)).unwrap_or("router_entropy")
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let mut keys = run_keys(canvas, data, |run| PANELS.iter().any(|p| run.has(p.metric)));
    keys.push((Key::Reference, "chance: all experts equally likely".into()));
    let top = legend(canvas, 0.0, &keys) + 12.0;
    let shown: Vec<_> = PANELS.iter().filter(|panel| data.has(panel.metric)).collect();
    let (places, height) = lay_out(canvas, top, shown.len(), 250.0, 210.0);
    for (view, place) in shown.into_iter().zip(places) {
        // Routers can be close to chance in every layer: the axes span the values and the chance level,
        // not all that is possible.
        layer_panel(canvas, data, place, view.metric, view.title, view.unit, NO_RANGE, |run| {
            view.values(run)
        });
    }
    top + height
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "Entropy is over the full softmax of the router: at ln E (dashed) it does not tell the experts \
         apart, at 0 it is certain. The margin is how far the last selected expert is ahead of the \
         first one left out: where it is small, rounding can change the set.",
    );
    for run in &data.runs {
        let entropy = run.per_layer("router_entropy");
        let least = entropy.iter().min_by(|a, b| a.value.total_cmp(&b.value));
        let most = entropy.iter().max_by(|a, b| a.value.total_cmp(&b.value));
        if let (Some(least), Some(most)) = (least, most) {
            let what = if least.layer == most.layer {
                format!("an entropy of {} nats", number(least.value))
            } else {
                format!(
                    "its surest router in layer {} ({} nats) and its least sure in layer {} ({} nats)",
                    least.layer,
                    number(least.value),
                    most.layer,
                    number(most.value)
                )
            };
            let chance = most.chance.map(|chance| format!("; ln E is {}", number(chance)));
            caption
                .fact(run, format!("{} has {what}{}.", run.tagged(), chance.unwrap_or_default()));
        }
    }
    caption.note(&missing_note(data, |run| PANELS.iter().any(|panel| run.has(panel.metric))))
}

fn table(data: &Data<'_>) -> Table {
    let shown: Vec<_> = PANELS.iter().filter(|panel| data.has(panel.metric)).collect();
    let mut table = Table::new().text("Run").number("Layer");
    for view in &shown {
        let name = format!("{} ({})", view.title, view.unit);
        table = table.number(&name).number("95\u{a0}% interval").number("by chance");
    }
    for run in &data.runs {
        let columns: Vec<_> = shown.iter().map(|view| view.values(run)).collect();
        for layer in run.layers() {
            let mut cells = vec![run.tagged(), layer.layer.to_string()];
            for values in &columns {
                let value = values.iter().find(|v| v.layer == layer.layer);
                let show = |v: Option<f64>| v.map_or(crate::format::NOTHING.into(), number);
                cells.push(show(value.map(|v| v.value)));
                cells.push(interval(value.and_then(|v| v.interval)));
                cells.push(show(value.and_then(|v| v.chance)));
            }
            table.row(cells);
        }
    }
    table.trimmed()
}
