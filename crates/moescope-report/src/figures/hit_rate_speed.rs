//! What a hit rate is worth: predicted speed of decoding with experts fetched from the host.

use moescope_analysis::simulate::speed::{Machine, ModelBytes, Speed};

use super::curves::{Curve, curve_panel};
use super::hit_rate::{LRU, POLICIES, STATIC, curve};
use super::{Caption, Figure, MAX_MULTIPLES, drawn_note};
use crate::canvas::{
    Align, Axis, Canvas, Dash, Key, LABEL, Marker, SMALL, bold_width, lay_out, legend,
};
use crate::data::{Data, Point, Run};
use crate::format::{NOTHING, bytes, number, percent};
use crate::palette::Ink;
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "hit-rate-speed",
    title: "Hit rate against predicted speed",
    section: sections::CACHING,
    applicable: |data| {
        data.needs_routing(POLICIES[LRU].0)?;
        match data.runs.iter().any(|run| ModelBytes::of(run.manifest).is_some()) {
            true => Ok(()),
            false => Err("the bytes of the model were not recorded".into()),
        }
    },
    caption,
    draw,
    table,
};

/// The machine that is predicted for, that of `moescope simulate` without options.
const MACHINE: Machine = Machine {
    vram: 8.0 * 1024.0 * 1024.0 * 1024.0,
    reserved: 0.0,
    device_bandwidth: 400e9,
    link_bandwidth: 25e9,
    link_latency: 10e-6,
    host_bandwidth: None,
};

fn speed(run: &Run<'_>) -> Option<Speed> {
    Some(Speed::new(ModelBytes::of(run.manifest)?, MACHINE))
}

/// Cache sizes that are marked: a quarter of the experts.
fn size(run: &Run<'_>) -> u32 {
    u32::from(run.most_experts()).div_ceil(4)
}

/// Hit rate of each policy at that size, with its place among [`POLICIES`].
fn marks(run: &Run<'_>) -> Vec<(usize, Point)> {
    let at = |(n, (metric, _)): (usize, &(&'static str, &str))| {
        let points = curve(run, metric);
        Some((n, *points.iter().find(|point| point.x == size(run))?))
    };
    POLICIES.iter().enumerate().filter_map(at).collect()
}

fn able(run: &Run<'_>) -> bool {
    speed(run).is_some()
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let mut keys: Vec<(Key, String)> = POLICIES
        .iter()
        .enumerate()
        .filter(|(_, (metric, _))| data.has(metric))
        .map(|(n, (_, name))| (Key::Mark(Marker::series(n), Ink::series(n)), (*name).into()))
        .collect();
    keys.push((Key::Broken(Dash::Dots, Ink::series(STATIC)), "chance of static, m/E".into()));
    keys.push((Key::Reference, "break-even: link time = memory time".into()));
    let top = legend(canvas, 0.0, &keys) + 12.0;
    let runs: Vec<_> = data
        .drawn(FIGURE.id, MAX_MULTIPLES, able)
        .into_iter()
        .filter_map(|run| Some((run, speed(run)?)))
        .collect();
    let narrowest = if runs.len() == 1 { canvas.width.min(560.0) } else { 300.0 };
    let (places, height) = lay_out(canvas, top, runs.len(), narrowest, 260.0);
    for ((run, speed), place) in runs.into_iter().zip(places) {
        let mut x_axis = Axis::linear("% of lookups that hit", 0.0, 1.0, 5);
        x_axis.ticks = [0, 25, 50, 75, 100].map(|v| (f64::from(v) / 100.0, v.to_string())).to_vec();
        let (low, high) = (speed.tokens_per_second(0.0), speed.tokens_per_second(1.0));
        let y_axis = Axis::log("predicted tokens/s, log", low * 0.9, high * 1.1, 6);
        let at = |n: u32| f64::from(n) / 100.0;
        let line = Curve {
            ink: Ink::Axis,
            marker: Marker::Circle,
            points: (0..=100).map(|n| (at(n), speed.tokens_per_second(at(n)), None)).collect(),
        };
        let name = run.fitted(place.w - 145.0, |text| bold_width(text, LABEL));
        let panel = curve_panel(canvas, place, &name, (&x_axis, &y_axis), &[], &[]);
        let points: Vec<_> =
            line.points.iter().map(|&(x, y, _)| (panel.x.at(x), panel.y.at(y))).collect();
        canvas.line(&points, line.ink, 1.8);
        let even = panel.x.at(speed.break_even());
        canvas.dashed(&[(even, panel.y.from), (even, panel.y.to)], Ink::Reference, 1.4);
        let side =
            if even > (panel.x.from + panel.x.to) / 2.0 { Align::Right } else { Align::Left };
        let shift = if side == Align::Right { -5.0 } else { 5.0 };
        canvas.text(even + shift, panel.y.to + 12.0, "break-even", SMALL, Ink::Muted, side);
        let marks = marks(run);
        if let Some(chance) =
            marks.iter().find(|(n, _)| *n == STATIC).and_then(|mark| mark.1.chance)
        {
            let ends = [(panel.x.at(chance), panel.y.from), (panel.x.at(chance), panel.y.to)];
            canvas.broken(&ends, Dash::Dots, Ink::series(STATIC), 1.6);
        }
        for (n, Point { value: hit_rate, .. }) in marks {
            let (x, y) = (panel.x.at(hit_rate), panel.y.at(speed.tokens_per_second(hit_rate)));
            canvas.marker(x, y, 9.0, Marker::series(n), Ink::series(n));
        }
    }
    top + height
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "Predicted, not measured: bytes over bandwidths for one sequence, with the experts that miss fetched \
         from the host at 25 GB/s (what PCIe 4.0 x16 reaches) and 10 µs each, and the rest read at 400 GB/s. \
         Marks are the policies with a quarter of the experts cached per layer, the dotted line is the hit \
         rate of any fixed quarter under uniform routing. Right of the dashed line a \
         faster link can at most double the speed, since there the link takes no longer than the device's memory. \
         `moescope simulate` predicts for other machines.",
    );
    for run in data.drawn(FIGURE.id, MAX_MULTIPLES, able) {
        let (Some(speed), Some(model)) = (speed(run), ModelBytes::of(run.manifest)) else {
            continue;
        };
        let lru = marks(run).into_iter().find(|(n, _)| *n == LRU);
        let lru = lru.map_or(String::new(), |(_, point)| {
            let chance = point.chance.map(|chance| {
                format!(" ({} under uniform routing)", number(speed.tokens_per_second(chance)))
            });
            format!(
                ", {} with LRU and {} experts per layer{}",
                number(speed.tokens_per_second(point.value)),
                size(run),
                chance.unwrap_or_default()
            )
        });
        caption.fact(run, format!(
            "{} (an expert is {}): {} tokens/s with all experts there{lru}, {} with none; break-even at {} hits.",
            run.tagged(),
            bytes(model.expert),
            number(speed.tokens_per_second(1.0)),
            number(speed.tokens_per_second(0.0)),
            percent(speed.break_even())
        ));
    }
    caption.note(&drawn_note(data, FIGURE.id, MAX_MULTIPLES, able))
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new()
        .text("Run")
        .text("Policy")
        .number("Experts cached per layer")
        .number("Hit rate")
        .number("Predicted tokens/s")
        .number("Hit rate by chance")
        .number("Predicted tokens/s");
    for run in &data.runs {
        let Some(speed) = speed(run) else { continue };
        for (n, point) in marks(run) {
            table.row(vec![
                run.tagged(),
                POLICIES[n].1.into(),
                size(run).to_string(),
                percent(point.value),
                number(speed.tokens_per_second(point.value)),
                point.chance.map_or(NOTHING.into(), percent),
                point.chance.map_or(NOTHING.into(), |c| number(speed.tokens_per_second(c))),
            ]);
        }
        let break_even = speed.break_even();
        table.row(vec![
            run.tagged(),
            "break-even".into(),
            NOTHING.into(),
            percent(break_even),
            number(speed.tokens_per_second(break_even)),
            NOTHING.into(),
            NOTHING.into(),
        ]);
    }
    table.trimmed()
}
