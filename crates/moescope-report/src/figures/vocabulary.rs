//! Tokens that belong to an expert, by name.

use moescope_analysis::{Specialist, Specialists};

use super::{Caption, Figure, drawn_note};
use crate::canvas::{
    Align, Canvas, Key, LABEL, SMALL, TITLE, bold_width, fit, lay_out, legend, text_width,
};
use crate::data::{Data, Run};
use crate::format::{count, percent};
use crate::palette::Ink;
use crate::sections;
use crate::table::Table;
use crate::tokens::visible;

pub(crate) const FIGURE: Figure = Figure {
    id: "vocabulary",
    title: "Tokens with an expert of their own",
    section: sections::SPECIALISATION,
    applicable: |data| {
        data.needs_routing("tokens")?;
        match data.runs.iter().any(able) {
            true => Ok(()),
            false if data.has("vocabulary_specialisation") => Err("no token stands out".into()),
            false => Err("not recorded, or no token occurs ten times".into()),
        }
    },
    caption,
    draw,
    table,
};

/// Runs with bars of their own.
const MAX_RUNS: usize = 3;
/// Bars per panel.
const BARS: usize = 12;
/// Height of a bar with its air.
const ROW: f64 = 19.0;

fn able(run: &Run<'_>) -> bool {
    run.specialists().iter().any(|layer| !layer.input.is_empty())
}

/// The layer that a finding names, else the one whose experts follow tokens most, compared with chance.
fn chosen<'a>(data: &Data<'_>, run: &Run<'a>) -> Option<&'a Specialists> {
    let values = run.per_layer("vocabulary_specialisation");
    let of = |layer: u16| {
        let found = values.iter().find(|value| value.layer == layer);
        found.and_then(|value| Some(value.value / value.chance?)).unwrap_or(0.0)
    };
    let known = || run.specialists().iter().filter(|layer| !layer.input.is_empty());
    let named = data.named_layer(FIGURE.id, run);
    let named = known().find(|layer| Some(layer.layer) == named);
    named.or_else(|| {
        known().max_by(|a, b| of(a.layer).total_cmp(&of(b.layer)).then(b.layer.cmp(&a.layer)))
    })
}

/// The token as a reader knows it: its text in quotes, or its id where there is no text.
fn name(specialist: &Specialist) -> String {
    match specialist.text.as_str() {
        "" => format!("id {}", specialist.token_id),
        // Part of a character: many tokens look like that.
        text if text.contains('\u{fffd}') => {
            format!("“{}” id {}", visible(text), specialist.token_id)
        }
        text => format!("“{}”", visible(text)),
    }
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let keys = [
        (Key::Bar(Ink::Series(0)), "share of the token's occurrences".to_owned()),
        (Key::Reference, "by chance, the largest of all experts".to_owned()),
    ];
    let mut y = legend(canvas, 0.0, &keys) + 12.0;
    for run in data.drawn(FIGURE.id, MAX_RUNS, able) {
        let Some(layer) = chosen(data, run) else { continue };
        let heading = run.fitted(canvas.width - 80.0, |text| bold_width(text, LABEL));
        let heading = format!("{heading}, layer {}", layer.layer);
        canvas.strong(0.0, y + 13.0, &heading, LABEL, Ink::Text);
        y += TITLE - 6.0;
        let views = [("The token itself", &layer.input), ("The token that follows", &layer.next)];
        let shown: Vec<_> = views.into_iter().filter(|(_, list)| !list.is_empty()).collect();
        let most = shown.iter().map(|(_, list)| list.len().min(BARS)).max().unwrap_or(0);
        let height = 40.0 + most as f64 * ROW;
        let (places, used) = lay_out(canvas, y, shown.len(), 300.0, height);
        for ((title, list), place) in shown.into_iter().zip(places) {
            canvas.text(place.x, place.y + 12.0, title, SMALL, Ink::Muted, Align::Left);
            let list = &list[..list.len().min(BARS)];
            let names: Vec<String> =
                list.iter().map(|s| fit(&name(s), SMALL, place.w * 0.3)).collect();
            let widest = names.iter().map(|n| text_width(n, SMALL)).fold(0.0, f64::max);
            let left = place.x + widest + 8.0;
            let right = place.x + place.w - 120.0;
            let x_of = |share: f64| left + (right - left) * share.clamp(0.0, 1.0);
            let top = place.y + 20.0;
            for (row, (specialist, name)) in list.iter().zip(&names).enumerate() {
                let y = top + row as f64 * ROW;
                canvas.text(left - 6.0, y + 12.0, name, SMALL, Ink::Text, Align::Right);
                canvas.rect(
                    left,
                    y + 2.0,
                    x_of(specialist.share) - left,
                    ROW - 6.0,
                    Ink::Series(0),
                );
                let chance = x_of(specialist.chance);
                // On paper of its own: the bar behind it is dark.
                let mark = [(chance, y), (chance, y + ROW - 2.0)];
                canvas.line(&mark, Ink::Paper, 5.0);
                canvas.dashed(&mark, Ink::Reference, 1.8);
                let label = format!("expert {}, {}", specialist.expert, percent(specialist.share));
                canvas.text(right + 6.0, y + 12.0, &label, SMALL, Ink::Muted, Align::Left);
            }
            let bottom = top + list.len() as f64 * ROW;
            canvas.line(&[(left, top), (left, bottom)], Ink::Axis, 1.0);
            for share in [0.0, 0.5, 1.0] {
                let x = x_of(share);
                canvas.line(&[(x, bottom), (x, bottom + 4.0)], Ink::Axis, 1.0);
                let label = format!("{:.0} %", share * 100.0);
                canvas.text(x, bottom + 16.0, &label, SMALL, Ink::Muted, Align::Centre);
            }
        }
        y += used + 12.0;
    }
    y
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "Tokens that select one expert more often than chance, the clearest cases first, in the layer that a \
         finding names, else the one where tokens and experts belong together most; the second part is of \
         the token that comes next. Only tokens with at least ten occurrences count. A bar that ends at its \
         dashed mark is chance, one that runs far past it shows an expert for that token.",
    );
    for run in data.drawn(FIGURE.id, MAX_RUNS, able) {
        let Some(layer) = chosen(data, run) else { continue };
        let values = run.per_layer("vocabulary_specialisation");
        if let Some(most) = values.iter().find(|value| value.layer == layer.layer) {
            let chance = most.chance.map(|chance| format!(" (by chance {})", percent(chance)));
            caption.fact(
                run,
                format!(
                    "{}: in layer {} a token goes to its main expert {} of the time{}.",
                    run.tagged(),
                    most.layer,
                    percent(most.value),
                    chance.unwrap_or_default()
                ),
            );
        }
    }
    caption.note(&drawn_note(data, FIGURE.id, MAX_RUNS, able))
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new()
        .text("Run")
        .number("Layer")
        .text("Which token")
        .text("Token")
        .number("Expert")
        .number("Occurrences")
        .number("Share")
        .number("By chance");
    for run in &data.runs {
        let Some(layer) = chosen(data, run) else { continue };
        for (which, list) in [("itself", &layer.input), ("the next", &layer.next)] {
            for specialist in list {
                table.row(vec![
                    run.tagged(),
                    layer.layer.to_string(),
                    which.into(),
                    name(specialist),
                    specialist.expert.to_string(),
                    count(specialist.occurrences.into()),
                    percent(specialist.share),
                    percent(specialist.chance),
                ]);
            }
        }
    }
    table.trimmed()
}
