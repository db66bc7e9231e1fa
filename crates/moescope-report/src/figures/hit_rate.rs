//! How often a cached expert is the one that is needed, by policy and cache size.

use super::curves::{Curve, chance_of, curve_panel, share_axis};
use super::{Caption, Figure, MAX_MULTIPLES, drawn_note};
use crate::canvas::{Axis, Canvas, Dash, Key, LABEL, Marker, bold_width, lay_out, legend};
use crate::data::{Data, Point, Run};
use crate::format::{NOTHING, list, percent};
use crate::palette::Ink;
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "hit-rate",
    title: "Hit rate against cache size",
    section: sections::CACHING,
    applicable: |data| data.needs_routing(POLICIES[LRU].0),
    caption,
    draw,
    table,
};

/// Metric and name of each policy, in the order of their marks.
pub(super) const POLICIES: [(&str, &str); 5] = [
    ("hit_rate_belady", "Belady, the bound"),
    ("hit_rate_lru", "LRU"),
    ("hit_rate_lfu", "LFU"),
    ("hit_rate_static", "static, chosen on other texts"),
    ("hit_rate_lru_warm", "LRU warmed by the prompt"),
];

/// The policies whose chance levels are drawn, with the patterns of their lines and what they are. Each
/// policy has its own: under uniform routing too a cache that starts empty misses, and one that knows the
/// future hits. That of LFU is that of LRU, and of a warmed LRU nearly m/E.
const CHANCES: [(usize, Dash, &str); 3] = [
    (STATIC, Dash::Dots, "chance of static, m/E"),
    (LRU, Dash::Short, "chance of LRU and LFU, from an empty cache"),
    (BELADY, Dash::Long, "chance of Belady"),
];

/// Places among [`POLICIES`].
const BELADY: usize = 0;
pub(super) const LRU: usize = 1;
pub(super) const STATIC: usize = 3;

/// Hit rates of a policy by experts cached per layer, over all layers; of generated tokens where there
/// are some.
pub(super) fn curve(run: &Run<'_>, metric: &'static str) -> Vec<Point> {
    run.by_size(metric, None, run.generation(metric))
}

/// Curves are drawn from at most this many sizes.
const MAX_SIZES: usize = 64;

fn thinned(points: Vec<Point>) -> Vec<Point> {
    let every = points.len().div_ceil(MAX_SIZES).max(1);
    let last = points.len().saturating_sub(1);
    let kept = points.into_iter().enumerate().filter(|(n, _)| n % every == 0 || *n == last);
    kept.map(|(_, point)| point).collect()
}

fn able(run: &Run<'_>) -> bool {
    !curve(run, POLICIES[LRU].0).is_empty()
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let mut keys: Vec<(Key, String)> = POLICIES
        .iter()
        .enumerate()
        .filter(|(_, (metric, _))| data.has(metric))
        .map(|(n, (_, name))| (Key::Mark(Marker::series(n), Ink::series(n)), (*name).into()))
        .collect();
    keys.extend(
        CHANCES
            .iter()
            .filter(|(n, ..)| data.has(POLICIES[*n].0))
            .map(|(n, dash, name)| (Key::Broken(*dash, Ink::series(*n)), (*name).into())),
    );
    let top = legend(canvas, 0.0, &keys) + 12.0;
    let runs = data.drawn(FIGURE.id, MAX_MULTIPLES, able);
    let narrowest = if runs.len() == 1 { canvas.width.min(560.0) } else { 300.0 };
    let (places, height) = lay_out(canvas, top, runs.len(), narrowest, 270.0);
    for (run, place) in runs.into_iter().zip(places) {
        let most = f64::from(run.most_experts());
        let title = format!("experts cached per layer, of {most}");
        let x_axis = Axis::whole(&title, 1, most as u32, (place.w / 45.0) as usize);
        let y_axis = share_axis("% of lookups that hit");
        let curves: Vec<Curve> = POLICIES
            .iter()
            .enumerate()
            .map(|(n, (metric, _))| Curve::new(n, &thinned(curve(run, metric)), |x| x, |y| y))
            .filter(|curve| !curve.points.is_empty())
            .collect();
        let name = run.fitted(place.w - 130.0, |text| bold_width(text, LABEL));
        let panel = curve_panel(canvas, place, &name, (&x_axis, &y_axis), &curves, &[]);
        for (n, dash, _) in CHANCES {
            let points = thinned(curve(run, POLICIES[n].0));
            let levels = chance_of(&points, |x| panel.x.at(x), |y| panel.y.at(y));
            canvas.broken(&levels, dash, Ink::series(n), 1.6);
        }
    }
    top + height
}

/// The smallest size at which a policy hits at least `share` of the lookups.
fn smallest(points: &[Point], share: f64) -> Option<u32> {
    points.iter().find(|point| point.value >= share).map(|point| point.x)
}

fn caption(data: &Data<'_>) -> Caption {
    let generated = data.runs.iter().any(|run| run.generation(POLICIES[1].0).is_some());
    let mut caption = Caption::new(
        "Each layer holds as many experts as the axis says and the others have to be fetched: how often \
         the expert a token needs is there. LRU and LFU begin every text with an empty cache, so they miss some \
         even where all experts fit; the others begin filled. Three things are told apart. Static above its \
         dotted line, m of E experts, is lasting popularity: the experts that other texts use most. LRU above \
         static is locality: a text keeps to experts of its own. LRU above its dashed line is both together. \
         Belady's is the bound, with knowledge of the future, which hits more by chance as well. Simulated on \
         the recorded routing",
    )
    .note(if generated { ", generated tokens only." } else { ", all tokens." })
    .note(" Vertical bars are 95\u{a0}% intervals over sequences.");
    for run in data.drawn(FIGURE.id, MAX_MULTIPLES, able) {
        let quarter = u32::from(run.most_experts()).div_ceil(4);
        let hits: Vec<String> = [(STATIC, "static"), (LRU, "LRU"), (BELADY, "Belady")]
            .into_iter()
            .filter_map(|(n, name)| {
                let points = curve(run, POLICIES[n].0);
                let point = points.iter().find(|point| point.x == quarter)?;
                let chance = point.chance.map_or(NOTHING.into(), percent);
                Some(format!("{name} {} (by chance {chance})", percent(point.value)))
            })
            .collect();
        if hits.is_empty() {
            continue;
        }
        let enough = smallest(&curve(run, POLICIES[LRU].0), 0.9)
            .map(|size| format!("; LRU needs {size} for 90\u{a0}%"))
            .unwrap_or_default();
        caption.fact(
            run,
            format!(
                "{}: hit rates with {quarter} of {} experts per layer are {}{enough}.",
                run.tagged(),
                run.most_experts(),
                list(&hits)
            ),
        );
    }
    caption.note(&drawn_note(data, FIGURE.id, MAX_MULTIPLES, able))
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new().text("Run").number("Experts cached per layer");
    for (_, name) in POLICIES.iter().filter(|(metric, _)| data.has(metric)) {
        table = table.number(name).number("95\u{a0}% interval").number("by chance");
    }
    for run in &data.runs {
        let curves: Vec<Vec<Point>> = POLICIES
            .iter()
            .filter(|(metric, _)| data.has(metric))
            .map(|(metric, _)| curve(run, metric))
            .collect();
        for point in thinned(curve(run, POLICIES[LRU].0)) {
            let mut cells = vec![run.tagged(), point.x.to_string()];
            for curve in &curves {
                let found = curve.iter().find(|other| other.x == point.x);
                cells.push(found.map_or(NOTHING.into(), |point| percent(point.value)));
                cells.push(super::share_interval(found.and_then(|point| point.range)));
                let chance = found.and_then(|point| point.chance);
                cells.push(chance.map_or(NOTHING.into(), percent));
            }
            table.row(cells);
        }
    }
    table.trimmed()
}
