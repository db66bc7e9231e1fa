//! How well the model predicts the texts of each domain.

use super::{Caption, Figure, missing_note};
use crate::canvas::{
    Align, Axis, Canvas, Dash, Key, Marker, SMALL, fit, legend, run_keys, text_width,
};
use crate::data::{Data, Estimate};
use crate::format::{interval, number};
use crate::palette::Ink;
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "predictability",
    title: "Predictability by domain",
    section: sections::SPECIALISATION,
    applicable: |data| match data.runs.iter().any(|run| run.by_domain(METRIC).len() > 1) {
        true => Ok(()),
        false if data.has(METRIC) => Err("the prompts are of one domain only".into()),
        false => Err("no log-probabilities were recorded".into()),
    },
    caption,
    draw,
    table,
};

const METRIC: &str = "mean_logprob";

/// Domains that are drawn; of more, the easiest and the hardest.
const MAX_DOMAINS: usize = 40;

/// Runs up to which intervals and means are drawn: of more they would hide the marks.
const FEW: usize = 3;

/// Height of a row.
const ROW: f64 = 20.0;

/// Mean log-probability and interval of a domain in each run; none where the run has no such domain.
struct Domain {
    name: String,
    values: Vec<Option<Estimate>>,
}

/// All domains of the runs, the easiest first: by the run that a finding names, else by the first; those it
/// does not have come last.
fn domains(data: &Data<'_>) -> Vec<Domain> {
    let mut domains: Vec<Domain> = Vec::new();
    for (at, run) in data.runs.iter().enumerate() {
        for (name, estimate) in run.by_domain(METRIC) {
            let place = domains.iter().position(|known| known.name == name).unwrap_or_else(|| {
                domains.push(Domain { name, values: vec![None; data.runs.len()] });
                domains.len() - 1
            });
            domains[place].values[at] = Some(estimate);
        }
    }
    let leading = data.drawn(FIGURE.id, 1, |run| !run.by_domain(METRIC).is_empty());
    let leading = leading.first().map_or(0, |run| run.place());
    let of = |domain: &Domain| domain.values[leading].map_or(f64::NEG_INFINITY, |value| value.0);
    domains.sort_by(|a, b| of(b).total_cmp(&of(a)));
    domains
}

/// The domains that are drawn, and how many are not.
fn shown(data: &Data<'_>) -> (Vec<Domain>, usize) {
    let mut domains = domains(data);
    let left_out = domains.len().saturating_sub(MAX_DOMAINS);
    if left_out > 0 {
        domains.drain(MAX_DOMAINS / 2..MAX_DOMAINS / 2 + left_out);
    }
    (domains, left_out)
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let (domains, _) = shown(data);
    let few = data.runs.len() <= FEW;
    let mut keys = run_keys(canvas, data, |run| !run.by_domain(METRIC).is_empty());
    if few {
        keys.push((Key::Reference, "mean of all tokens of a run, in its colour".into()));
    }
    let top = legend(canvas, 0.0, &keys) + 10.0;
    let names: Vec<String> =
        domains.iter().map(|domain| fit(&domain.name, SMALL, canvas.width * 0.35)).collect();
    let values = || domains.iter().flat_map(|domain| &domain.values).flatten();
    let ends = || {
        values().flat_map(|(value, range)| {
            [*value, range.map_or(*value, |r| r.0), range.map_or(*value, |r| r.1)]
        })
    };
    let (low, high) =
        (ends().fold(f64::INFINITY, f64::min), ends().fold(f64::NEG_INFINITY, f64::max));
    let axis = Axis::linear("mean log-probability, nats per token", low, high, 6);
    // Names stand left of the axis, and half of a tick's label beyond either end of it.
    let beyond = axis.ticks.iter().map(|(_, label)| text_width(label, SMALL) / 2.0);
    let beyond = beyond.fold(10.0, f64::max) + 2.0;
    let names_end = names.iter().map(|name| text_width(name, SMALL)).fold(0.0, f64::max) + 10.0;
    let (left, right) = (names_end.max(beyond), canvas.width - beyond);
    let x = axis.scale(left, right);
    let bottom = top + domains.len() as f64 * ROW;
    for (value, label) in &axis.ticks {
        let at = x.at(*value);
        canvas.line(&[(at, top), (at, bottom)], Ink::Grid, 1.0);
        canvas.text(at, bottom + 16.0, label, SMALL, Ink::Muted, Align::Centre);
    }
    canvas.line(&[(left, bottom), (right, bottom)], Ink::Axis, 1.0);
    if few {
        for (n, run) in data.runs.iter().enumerate() {
            if let Some(mean) = run.all_domains(METRIC) {
                let ends = [(x.at(mean), top), (x.at(mean), bottom)];
                canvas.broken(&ends, Dash::Short, Ink::series(n), 1.4);
            }
        }
    }
    // Runs stand a little below each other: equal ones would hide all but the last.
    let beside = (ROW * 0.6 / data.runs.len() as f64).min(4.0);
    let first = -beside * (data.runs.len() - 1) as f64 / 2.0;
    for (row, (domain, name)) in domains.iter().zip(&names).enumerate() {
        let middle = top + (row as f64 + 0.5) * ROW;
        canvas.text(left - 8.0, middle + 4.0, name, SMALL, Ink::Text, Align::Right);
        for (n, value) in domain.values.iter().enumerate() {
            let Some((value, range)) = value else { continue };
            let y = middle + first + beside * n as f64;
            if let (Some((low, high)), true) = (range, few) {
                canvas.line(&[(x.at(*low), y), (x.at(*high), y)], Ink::series(n), 1.2);
            }
            canvas.marker(x.at(*value), y, 6.5, Marker::series(n), Ink::series(n));
        }
    }
    let title = fit(&axis.title, SMALL, canvas.width);
    let half = text_width(&title, SMALL) / 2.0;
    let centre = ((left + right) / 2.0).clamp(half, (canvas.width - half).max(half));
    canvas.text(centre, bottom + 32.0, &title, SMALL, Ink::Muted, Align::Centre);
    bottom + 38.0
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "How surely the model expects the tokens of a domain, of the prompts alone where the run tells them \
         apart: 0 is certainty, and a nat less is a third of the probability. Domains of short or repetitive \
         tokens are easy for any model: compare runs within a row before rows.",
    );
    if data.runs.len() <= FEW {
        caption = caption.note(
            " A domain right of the dashed line is easier than its run as a whole. Horizontal bars are \
             95\u{a0}% intervals over sequences.",
        );
    }
    let (_, left_out) = shown(data);
    if left_out > 0 {
        caption = caption.note(&format!(
            " The {MAX_DOMAINS} easiest and hardest domains are drawn; the table has {left_out} more."
        ));
    }
    for run in &data.runs {
        let mut domains = run.by_domain(METRIC);
        domains.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
        if let ([easiest, .., hardest], Some(all)) = (&domains[..], run.all_domains(METRIC)) {
            caption.fact(
                run,
                format!(
                    "{}: easiest is {} ({} nats per token), hardest {} ({}); all together {}.",
                    run.tagged(),
                    easiest.0,
                    number(easiest.1.0),
                    hardest.0,
                    number(hardest.1.0),
                    number(all)
                ),
            );
        }
    }
    caption.note(&missing_note(data, |run| !run.by_domain(METRIC).is_empty()))
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new()
        .text("Domain")
        .text("Run")
        .number("Mean log-probability, nats per token")
        .number("95\u{a0}% interval");
    for domain in domains(data) {
        for (run, value) in data.runs.iter().zip(&domain.values) {
            let Some((value, range)) = value else { continue };
            let cells = [domain.name.clone(), run.tagged(), number(*value), interval(*range)];
            table.row(cells.to_vec());
        }
    }
    table.trimmed()
}
