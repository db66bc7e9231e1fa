//! What pruning the least salient experts would save and lose, by three rankings of them.

use moescope_analysis::Pruning;

use super::curves::{Curve, curve_panel, share_axis};
use super::{Caption, Figure, MAX_MULTIPLES, missing_note, multiples_note};
use crate::canvas::{Axis, Canvas, Key, LABEL, Marker, bold_width, lay_out, legend};
use crate::data::{Data, Run};
use crate::format::{NOTHING, percent};
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

/// A ranking of experts: its metrics, its name, and the experts in its order.
struct Ranking {
    traffic: &'static str,
    saliency: &'static str,
    name: &'static str,
    order: fn(&Pruning) -> &[u16],
}

/// The rankings, in the order of their marks.
const RANKINGS: [Ranking; 3] = [
    Ranking {
        traffic: "pruned_traffic",
        saliency: "pruned_saliency",
        name: "REAP",
        order: |pruning| &pruning.reap,
    },
    Ranking {
        traffic: "pruned_traffic_ean",
        saliency: "pruned_saliency_ean",
        name: "EAN",
        order: |pruning| &pruning.ean,
    },
    Ranking {
        traffic: "pruned_traffic_frequency",
        saliency: "pruned_saliency_frequency",
        name: "frequency",
        order: |pruning| &pruning.frequency,
    },
];

/// What is gone with some of the experts.
#[derive(Clone, Copy)]
struct Gone {
    /// Experts, and as a share of all.
    pruned: u32,
    experts: f64,
    traffic: f64,
    saliency: f64,
}

/// What is gone with 1, 2, ... experts per layer, mean over layers.
fn trade_off(run: &Run<'_>, ranking: &Ranking) -> Vec<Gone> {
    let experts = f64::from(run.most_experts().max(1));
    let traffic = run.mean_by_size(ranking.traffic, None);
    let saliency = run.mean_by_size(ranking.saliency, None);
    let both = traffic.iter().zip(&saliency).filter(|(t, s)| t.x == s.x);
    both.map(|(t, s)| Gone {
        pruned: t.x,
        experts: f64::from(t.x) / experts,
        traffic: t.value,
        saliency: s.value,
    })
    .collect()
}

/// What is gone with a quarter of the experts.
fn quarter(run: &Run<'_>, ranking: &Ranking) -> Option<Gone> {
    trade_off(run, ranking).into_iter().find(|gone| gone.experts >= 0.25)
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let mut keys: Vec<(Key, String)> = RANKINGS
        .iter()
        .enumerate()
        .map(|(n, ranking)| (Key::Mark(Marker::series(n), Ink::series(n)), ranking.name.into()))
        .collect();
    keys.push((Key::Reference, "saliency in proportion to traffic".into()));
    let top = legend(canvas, 0.0, &keys) + 12.0;
    let runs: Vec<_> =
        data.runs.iter().filter(|run| run.has("pruned_saliency")).take(MAX_MULTIPLES).collect();
    let narrowest = if runs.len() == 1 { canvas.width.min(560.0) } else { 300.0 };
    let (places, height) = lay_out(canvas, top, runs.len(), narrowest, 290.0);
    for (run, place) in runs.into_iter().zip(places) {
        let mut x_axis =
            Axis::linear("% of the selections that fell on pruned experts", 0.0, 1.0, 5);
        x_axis.ticks = [0, 25, 50, 75, 100].map(|v| (f64::from(v) / 100.0, v.to_string())).to_vec();
        let y_axis = share_axis("% of the saliency that is gone");
        let curves: Vec<Curve> = RANKINGS
            .iter()
            .enumerate()
            .map(|(n, ranking)| Curve {
                ink: Ink::series(n),
                marker: Marker::series(n),
                points: trade_off(run, ranking)
                    .into_iter()
                    .map(|gone| (gone.traffic, gone.saliency, None))
                    .collect(),
            })
            .filter(|curve| !curve.points.is_empty())
            .collect();
        let name = run.fitted(place.w - 130.0, |text| bold_width(text, LABEL));
        let chance = [(0.0, 0.0), (1.0, 1.0)];
        curve_panel(canvas, place, &name, (&x_axis, &y_axis), &curves, &chance);
    }
    top + height
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "Experts are removed with the least salient first, by three rankings: what an expert adds per token \
         (REAP), what it adds in all (EAN), and how often it is selected. How much of the traffic they served \
         and how much of the REAP saliency goes with them, mean over layers, on texts that the ranking has not \
         seen. The further a curve runs below the dashed line, the more the busy experts are not the ones that \
         matter. It says nothing about the quality of a pruned model.",
    );
    for run in &data.runs {
        let gone: Vec<String> = RANKINGS
            .iter()
            .filter_map(|ranking| {
                let gone = quarter(run, ranking)?;
                let (traffic, saliency) = (percent(gone.traffic), percent(gone.saliency));
                Some(format!("by {} {traffic} and {saliency}", ranking.name))
            })
            .collect();
        if !gone.is_empty() {
            caption.fact(run, format!(
                "{}: a quarter of the experts serves this much of the selections and holds this much of the \
                 saliency: {}.",
                run.tagged(),
                gone.join(", ")
            ));
        }
    }
    caption
        .note(&multiples_note(data))
        .note(" The table names the experts of each layer that go first.")
        .note(&missing_note(data, |run| run.has("pruned_saliency")))
}

/// The quarter of the experts of a layer that goes first.
fn first_to_go(order: &[u16]) -> String {
    let numbers = order[..order.len().div_ceil(4)].iter().map(u16::to_string);
    numbers.collect::<Vec<_>>().join(", ")
}

/// Steps of the curves that the table has.
const STEPS: usize = 8;

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new()
        .text("Run")
        .text("Ranking")
        .text("Layers")
        .number("Experts pruned")
        .number("Selections gone")
        .number("Saliency gone")
        .text("First to go");
    for run in &data.runs {
        for ranking in &RANKINGS {
            let curve = trade_off(run, ranking);
            let every = curve.len().div_ceil(STEPS).max(1);
            for gone in curve.iter().filter(|gone| (gone.pruned as usize).is_multiple_of(every)) {
                table.row(vec![
                    run.tagged(),
                    ranking.name.into(),
                    "mean".into(),
                    percent(gone.experts),
                    percent(gone.traffic),
                    percent(gone.saliency),
                    NOTHING.into(),
                ]);
            }
        }
        for pruning in run.pruning() {
            for ranking in &RANKINGS {
                let order = (ranking.order)(pruning);
                let pruned = order.len().div_ceil(4) as u32;
                let gone = |metric| {
                    let points = run.by_size(metric, Some(pruning.layer), None);
                    let point = points.into_iter().find(|point| point.x == pruned);
                    point.map_or(NOTHING.into(), |point| percent(point.value))
                };
                if !order.is_empty() {
                    table.row(vec![
                        run.tagged(),
                        ranking.name.into(),
                        pruning.layer.to_string(),
                        pruned.to_string(),
                        gone(ranking.traffic),
                        gone(ranking.saliency),
                        first_to_go(order),
                    ]);
                }
            }
        }
    }
    table.trimmed()
}
