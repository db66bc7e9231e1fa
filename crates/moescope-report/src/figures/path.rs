//! The way of tokens from expert to expert: first choices of neighbouring layers.

use moescope_analysis::Transitions;

use super::balance::layer_panel;
use super::{Caption, Figure, NARROW, WIDE, drawn_note};
use crate::canvas::{
    Align, Canvas, Key, LABEL, Place, SMALL, TITLE, bold_width, legend, run_keys, text_width,
};
use crate::data::{Data, Run};
use crate::format::{number, percent};
use crate::palette::Ink;
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "path",
    title: "Paths from expert to expert",
    section: sections::STRUCTURE,
    applicable: |data| {
        data.needs_routing("tokens")?;
        match data.runs.iter().any(able) {
            true => Ok(()),
            false => Err("a path takes two neighbouring MoE layers".into()),
        }
    },
    caption,
    draw,
    table,
};

/// Runs with a flow of their own.
const MAX_FLOWS: usize = 3;
/// Experts of a layer that are told apart, the ones that come first most often; the rest is one.
const NAMED: usize = 6;
/// Height of a flow.
const HEIGHT: f64 = 250.0;
/// Width of a layer's bar.
const BAR: f64 = 9.0;

fn able(run: &Run<'_>) -> bool {
    !run.transitions().is_empty()
}

/// Layers side by side in a figure of some width.
fn columns_in(width: f64) -> usize {
    ((width / 85.0) as usize).clamp(3, 9)
}

/// The pairs of layers that are drawn in some width. What a phone shows is part of what a desktop does, so
/// that one caption serves both.
fn window<'a>(data: &Data<'_>, run: &Run<'a>, width: f64) -> &'a [Transitions] {
    let named = data.named_layer(FIGURE.id, run);
    let widest = best(run, run.transitions(), columns_in(WIDE), named);
    best(run, widest, columns_in(width), named)
}

/// Of pairs of layers the run of neighbours that tell most of each other, with the layer that a finding names.
fn best<'a>(
    run: &Run<'_>,
    all: &'a [Transitions],
    columns: usize,
    named: Option<u16>,
) -> &'a [Transitions] {
    let pairs = (columns - 1).min(all.len());
    if pairs == 0 {
        return &[];
    }
    let information = run.per_layer("path_information");
    let of = |pair: &Transitions| {
        information.iter().find(|value| value.layer == pair.layer).map_or(0.0, |value| value.value)
    };
    let sum = |window: &[Transitions]| window.iter().map(of).sum::<f64>();
    let follows = |window: &[Transitions]| window.windows(2).all(|two| two[0].next == two[1].layer);
    let has = |layer: u16| move |pair: &Transitions| pair.layer == layer;
    // The last layer tells nothing of a next one: no finding names it.
    let named = named.filter(|&layer| all.iter().any(has(layer)));
    let found = all.windows(pairs).filter(|window| {
        follows(window) && named.is_none_or(|layer| window.iter().any(has(layer)))
    });
    // Of equal ones the first.
    found.reduce(|best, next| if sum(next) > sum(best) { next } else { best }).unwrap_or(&all[..1])
}

/// First choices of one layer: experts that are named, by falling count, and the place of each expert
/// among them ([`NAMED`] for the rest).
struct Column {
    layer: u16,
    named: Vec<usize>,
    sizes: [f64; NAMED + 1],
}

impl Column {
    fn new(layer: u16, counts: &[f64]) -> Self {
        let mut order: Vec<usize> = (0..counts.len()).filter(|&e| counts[e] > 0.0).collect();
        order.sort_by(|&a, &b| counts[b].total_cmp(&counts[a]).then(a.cmp(&b)));
        order.truncate(NAMED);
        let mut sizes = [0.0; NAMED + 1];
        for (expert, count) in counts.iter().enumerate() {
            sizes[place(&order, expert)] += count;
        }
        Self { layer, named: order, sizes }
    }
}

fn place(named: &[usize], expert: usize) -> usize {
    named.iter().position(|&other| other == expert).unwrap_or(NAMED)
}

fn columns(pairs: &[Transitions]) -> Vec<Column> {
    let row_sums = |pair: &Transitions| -> Vec<f64> {
        let rows = pair.counts.chunks(pair.experts[1].max(1));
        rows.map(|row| row.iter().map(|&count| f64::from(count)).sum()).collect()
    };
    let column_sums = |pair: &Transitions| -> Vec<f64> {
        let mut sums = vec![0.0; pair.experts[1]];
        for row in pair.counts.chunks(pair.experts[1].max(1)) {
            row.iter().zip(&mut sums).for_each(|(&count, sum)| *sum += f64::from(count));
        }
        sums
    };
    let mut columns: Vec<Column> =
        pairs.iter().map(|pair| Column::new(pair.layer, &row_sums(pair))).collect();
    columns.extend(pairs.last().map(|pair| Column::new(pair.next, &column_sums(pair))));
    columns
}

fn ink(place: usize) -> Ink {
    if place < NAMED { Ink::Flow(place as u8) } else { Ink::Missing }
}

/// Most of a column's height that the experts without a name get: they would leave no room for paths.
const REST: f64 = 0.22;

/// Top and bottom of each part of a column.
fn stacked(sizes: &[f64; NAMED + 1], top: f64, height: f64) -> [(f64, f64); NAMED + 1] {
    const GAP: f64 = 3.0;
    let total: f64 = sizes.iter().sum::<f64>().max(1.0);
    let room = height - GAP * NAMED as f64;
    let rest = (sizes[NAMED] / total).min(REST);
    let named = (total - sizes[NAMED]).max(1.0);
    let (mut y, mut place) = (top, 0);
    sizes.map(|size| {
        let share = if place == NAMED { rest } else { size / named * (1.0 - rest) };
        place += 1;
        let from = y;
        y += share * room + GAP;
        (from, y - GAP)
    })
}

fn flow(canvas: &Canvas<'_>, place_on: Place, pairs: &[Transitions]) {
    let columns = columns(pairs);
    let (top, height) = (place_on.y + 18.0, place_on.h - 40.0);
    let right = place_on.w - BAR - 32.0;
    let x_of = |n: usize| place_on.x + right * n as f64 / (columns.len() - 1).max(1) as f64;
    let stacks: Vec<_> = columns.iter().map(|c| stacked(&c.sizes, top, height)).collect();
    for (n, pair) in pairs.iter().enumerate() {
        let (from, to) = (&columns[n], &columns[n + 1]);
        let mut flows = [[0.0; NAMED + 1]; NAMED + 1];
        for (i, row) in pair.counts.chunks(pair.experts[1].max(1)).enumerate() {
            let i = place(&from.named, i);
            for (j, &count) in row.iter().enumerate().filter(|(_, count)| **count > 0) {
                flows[i][place(&to.named, j)] += f64::from(count);
            }
        }
        let scale = |stack: &(f64, f64), size: f64| (stack.1 - stack.0) / size.max(1.0);
        let mut left: [f64; NAMED + 1] = stacks[n].map(|(from, _)| from);
        let mut right: [f64; NAMED + 1] = stacks[n + 1].map(|(from, _)| from);
        let mut ribbons = Vec::new();
        for i in 0..=NAMED {
            for j in 0..=NAMED {
                let count = flows[i][j];
                let out = count * scale(&stacks[n][i], from.sizes[i]);
                let into = count * scale(&stacks[n + 1][j], to.sizes[j]);
                // From the rest to the rest there is no path to follow.
                if i < NAMED || j < NAMED {
                    ribbons.push((count, i, [left[i], out, right[j], into]));
                }
                left[i] += out;
                right[j] += into;
            }
        }
        // Unnamed and large ones below, so that the thin ones of named experts are seen.
        ribbons.sort_by(|a, b| (b.1 == NAMED).cmp(&(a.1 == NAMED)).then(b.0.total_cmp(&a.0)));
        for (count, i, [y0, out, y1, into]) in ribbons {
            if count > 0.0 && out.max(into) >= 0.35 {
                let ends = (x_of(n) + BAR, x_of(n + 1));
                ribbon(canvas, ends, (y0, out.max(0.35)), (y1, into.max(0.35)), ink(i));
            }
        }
    }
    for (n, (column, stack)) in columns.iter().zip(&stacks).enumerate() {
        let x = x_of(n);
        for (place, &(from, to)) in stack.iter().enumerate() {
            canvas.rect(x, from, BAR, (to - from).max(0.5), ink(place));
            canvas.frame(x, from, BAR, (to - from).max(0.5), Ink::Text);
            let label = match column.named.get(place) {
                Some(expert) => expert.to_string(),
                None if place == NAMED && column.sizes[NAMED] > 0.0 => "rest".into(),
                None => continue,
            };
            if to - from >= 9.0 {
                let (x, y) = (x + BAR + 3.0, (from + to) / 2.0 + 4.0);
                let width = text_width(&label, SMALL);
                canvas.rect(x - 1.0, y - 10.5, width + 2.0, 13.0, Ink::Paper);
                canvas.text(x, y, &label, SMALL, Ink::Text, Align::Left);
            }
        }
        let title = format!("{}", column.layer);
        let middle = (x + BAR / 2.0).max(text_width(&title, SMALL) / 2.0);
        canvas.text(middle, top + height + 16.0, &title, SMALL, Ink::Muted, Align::Centre);
    }
    let middle = place_on.x + right / 2.0;
    canvas.text(middle, place_on.y + place_on.h + 9.0, "layer", SMALL, Ink::Muted, Align::Centre);
}

/// A band that keeps its direction at both ends.
fn ribbon(canvas: &Canvas<'_>, x: (f64, f64), left: (f64, f64), right: (f64, f64), ink: Ink) {
    const STEPS: usize = 14;
    let at = |from: f64, to: f64, n: usize| {
        let t = n as f64 / STEPS as f64;
        let eased = t * t * (3.0 - 2.0 * t);
        (x.0 + (x.1 - x.0) * t, from + (to - from) * eased)
    };
    let upper: Vec<_> = (0..=STEPS).map(|n| at(left.0, right.0, n)).collect();
    let lower: Vec<_> = (0..=STEPS).map(|n| at(left.0 + left.1, right.0 + right.1, n)).collect();
    let outline: Vec<_> = upper.iter().copied().chain(lower.iter().rev().copied()).collect();
    canvas.polygon(&outline, ink);
    canvas.line(&upper, Ink::Paper, 0.7);
    canvas.line(&lower, Ink::Paper, 0.7);
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let mut y = 0.0;
    for run in data.drawn(FIGURE.id, MAX_FLOWS, able) {
        let name = run.fitted(canvas.width, |text| bold_width(text, LABEL));
        canvas.strong(0.0, y + 13.0, &name, LABEL, Ink::Text);
        let place = Place { x: 0.0, y: y + TITLE - 8.0, w: canvas.width, h: HEIGHT };
        flow(canvas, place, window(data, run, canvas.width));
        y += TITLE + HEIGHT + 20.0;
    }
    if data.has("path_information") {
        let mut keys = run_keys(canvas, data, |run| run.has("path_information"));
        keys.push((Key::Reference, "independent layers".into()));
        y += legend(canvas, y, &keys) + 12.0;
        let place = Place { x: 0.0, y, w: canvas.width.min(560.0), h: 200.0 };
        let (title, unit) = ("What a layer tells of the next", "bits");
        layer_panel(canvas, data, place, "path_information", title, unit, (0.0, 0.1), |run| {
            run.per_layer("path_information")
        });
        y += place.h;
    }
    y
}

/// A step between two experts that are drawn with their names.
struct Step {
    layer: u16,
    from: usize,
    next: u16,
    to: usize,
    /// Of the tokens of the first.
    share: f64,
}

/// The step that the largest share of an expert's tokens take, of those drawn with names.
fn surest(pairs: &[Transitions]) -> Option<Step> {
    /// Fewer tokens through an expert are no path.
    const LEAST: u32 = 50;
    let columns = columns(pairs);
    let mut best: Option<Step> = None;
    for (pair, sides) in pairs.iter().zip(columns.windows(2)) {
        for &from in &sides[0].named {
            let row = &pair.counts[from * pair.experts[1]..(from + 1) * pair.experts[1]];
            let total: u32 = row.iter().sum();
            let most = sides[1].named.iter().rev().max_by_key(|&&to| row[to]);
            let Some(&to) = most.filter(|_| total >= LEAST) else { continue };
            let share = f64::from(row[to]) / f64::from(total);
            if best.as_ref().is_none_or(|known| share > known.share) {
                best = Some(Step { layer: pair.layer, from, next: pair.next, to, share });
            }
        }
    }
    best
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(format!(
        "Each token takes its first expert of a layer and then its first of the next: the width of a band \
         at either end is the expert's share of tokens that takes it. Of each layer the {NAMED} experts that \
         come first most often are named, in the order of their colours; the rest is grey and drawn smaller \
         than it is. Of many layers the neighbours that tell most of each other are drawn, with the one that a \
         finding names."
    ));
    if data.has("path_information") {
        caption = caption.note(
            " Below, how many bits the first expert of a layer tells about that of the next, and how many \
             independent layers would seem to.",
        );
    }
    for run in data.drawn(FIGURE.id, MAX_FLOWS, able) {
        let Some(step) = surest(window(data, run, NARROW)) else { continue };
        let Step { layer, from, next, to, share } = step;
        let information = run.per_layer("path_information");
        let most = information.iter().max_by(|a, b| a.value.total_cmp(&b.value));
        let most = most.map_or(String::new(), |most| {
            format!("; layer {} tells most of the next, {} bits", most.layer, number(most.value))
        });
        caption.fact(run, format!(
            "{}: {} of the tokens of expert {from} in layer {layer} go to expert {to} in layer {next}{most}.",
            run.tagged(),
            percent(share)
        ));
    }
    caption.note(&drawn_note(data, FIGURE.id, MAX_FLOWS, able))
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new()
        .text("Run")
        .number("Layer")
        .number("Expert")
        .number("Next layer")
        .number("Expert")
        .number("Tokens")
        .number("Share of the expert's tokens");
    for run in &data.runs {
        let mut found = Vec::new();
        for pair in run.transitions() {
            for (at, &count) in pair.counts.iter().enumerate() {
                let (i, j) = (at / pair.experts[1], at % pair.experts[1]);
                found.push((count, pair, i, j));
            }
        }
        found.sort_by_key(|(count, ..)| std::cmp::Reverse(*count));
        for (count, pair, i, j) in found.into_iter().take(30).filter(|(count, ..)| *count > 0) {
            table.row(vec![
                run.tagged(),
                pair.layer.to_string(),
                i.to_string(),
                pair.next.to_string(),
                j.to_string(),
                crate::format::count(count.into()),
                pair.conditional(i, j).map_or(crate::format::NOTHING.into(), percent),
            ]);
        }
    }
    table.note("The thirty most frequent steps of each run.");
    table.trimmed()
}
