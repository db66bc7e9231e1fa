//! What pruning the least salient experts would save and lose.

use super::curves::{Curve, curve_panel, share_axis};
use super::{Caption, Figure, missing_note};
use crate::canvas::{Axis, Canvas, Key, Marker, Place, legend, run_keys};
use crate::data::{Data, Run};
use crate::format::percent;
use crate::palette::Ink;
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "pruning",
    title: "Pruning trade-off",
    section: sections::DEPLOYMENT,
    applicable: |data| match data.needs_routing("pruned_saliency") {
        Err(reason) if reason == "not recorded" => {
            Err("the norms of the experts' outputs were not recorded (`moescope run --saliency`)"
                .into())
        }
        other => other,
    },
    caption,
    draw,
    table,
};

/// (share of the experts, of the traffic, of the saliency) that is gone, mean over layers.
fn trade_off(run: &Run<'_>) -> Vec<(f64, f64, f64)> {
    let experts = f64::from(run.most_experts().max(1));
    let traffic = run.mean_by_size("pruned_traffic", None);
    let saliency = run.mean_by_size("pruned_saliency", None);
    let both = traffic.iter().zip(&saliency).filter(|(t, s)| t.x == s.x);
    both.map(|(t, s)| (f64::from(t.x) / experts, t.value, s.value)).collect()
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let mut keys = run_keys(canvas, data, |run| run.has("pruned_saliency"));
    keys.push((Key::Reference, "saliency in proportion to traffic".into()));
    let top = legend(canvas, 0.0, &keys) + 12.0;
    let place = Place { x: 0.0, y: top, w: canvas.width.min(560.0), h: 290.0 };
    let mut x_axis = Axis::linear("% of the selections that fell on pruned experts", 0.0, 1.0, 5);
    x_axis.ticks = [0, 25, 50, 75, 100].map(|v| (f64::from(v) / 100.0, v.to_string())).to_vec();
    let y_axis = share_axis("% of the saliency that is gone");
    let curves: Vec<Curve> = data
        .runs
        .iter()
        .enumerate()
        .map(|(n, run)| Curve {
            ink: Ink::series(n),
            marker: Marker::series(n),
            points: trade_off(run).into_iter().map(|(_, t, s)| (t, s, None)).collect(),
        })
        .filter(|curve| !curve.points.is_empty())
        .collect();
    let chance = [(0.0, 0.0), (1.0, 1.0)];
    curve_panel(canvas, place, "Least salient first", (&x_axis, &y_axis), &curves, &chance);
    top + place.h
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "Experts are removed in the order of their REAP saliency, the least salient first: how much of the \
         traffic they served and how much of the saliency goes with them, mean over layers. The further a \
         curve runs below the dashed line, the more the busy experts are not the ones that matter. It says \
         nothing about the quality of a pruned model.",
    );
    for run in &data.runs {
        let quarter = trade_off(run).into_iter().find(|(share, ..)| *share >= 0.25);
        if let Some((_, traffic, saliency)) = quarter {
            caption.fact(run, format!(
                "{}: a quarter of the experts serves {} of the selections and holds {} of the saliency.",
                run.tagged(),
                percent(traffic),
                percent(saliency)
            ));
        }
    }
    caption.note(&missing_note(data, |run| run.has("pruned_saliency")))
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new()
        .text("Run")
        .number("Experts pruned")
        .number("Selections gone")
        .number("Saliency gone");
    for run in &data.runs {
        for (experts, traffic, saliency) in trade_off(run) {
            table.row(vec![run.tagged(), percent(experts), percent(traffic), percent(saliency)]);
        }
    }
    table.trimmed()
}
