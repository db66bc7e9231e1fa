//! Legends: which mark is which run.

use super::{Align, Canvas, Dash, LABEL, Marker, fit, text_width};
use crate::data::{Data, Run};
use crate::palette::Ink;

/// One entry.
pub(crate) enum Key {
    /// A run: marker and colour.
    Mark(Marker, Ink),
    /// A line without points.
    Line(Ink),
    /// The dashed line of a chance level.
    Reference,
    /// One of several chance levels.
    Broken(Dash, Ink),
    /// A bar.
    Bar(Ink),
    /// Words that hold of the entries after it.
    Heading,
}

const ROW: f64 = 20.0;
const SWATCH: f64 = 26.0;
const GAP: f64 = 20.0;

/// Entries beyond which they stand in columns.
const FREE: usize = 7;

/// Draws entries from the top left, as many to a row as fit; returns the height used.
pub(crate) fn legend(canvas: &Canvas<'_>, top: f64, entries: &[(Key, String)]) -> f64 {
    legend_in(canvas, (0.0, canvas.width), top, entries)
}

/// [`legend`] in a part of the figure: (left, width).
pub(crate) fn legend_in(
    canvas: &Canvas<'_>,
    (left, room): (f64, f64),
    top: f64,
    entries: &[(Key, String)],
) -> f64 {
    let (mut x, mut y) = (left, top);
    let width_of = |label: &str| SWATCH + text_width(label, LABEL);
    let column = match entries.len() > FREE {
        // Of runs; what comes after them takes the room it needs.
        true => entries
            .iter()
            .filter(|(key, _)| matches!(key, Key::Mark(..)))
            .map(|(_, label)| width_of(label))
            .fold(0.0, f64::max),
        false => 0.0,
    };
    for (key, label) in entries {
        let label = fit(label, LABEL, room - SWATCH);
        if let Key::Heading = key {
            canvas.text(left, y + 12.5, &label, LABEL, Ink::Muted, Align::Left);
            y += ROW;
            continue;
        }
        let width = width_of(&label).max(column);
        if x > left && x + width > left + room {
            x = left;
            y += ROW;
        }
        let middle = y + 8.0;
        let ends = [(x, middle), (x + 20.0, middle)];
        match key {
            Key::Mark(marker, ink) => {
                canvas.line(&ends, *ink, 1.8);
                canvas.marker(x + 10.0, middle, 7.0, *marker, *ink);
            }
            Key::Line(ink) => canvas.line(&ends, *ink, 2.2),
            Key::Reference => canvas.dashed(&ends, Ink::Reference, 1.4),
            Key::Broken(dash, ink) => canvas.broken(&ends, *dash, *ink, 1.6),
            Key::Bar(ink) => canvas.rect(x, middle - 5.0, 20.0, 10.0, *ink),
            Key::Heading => {}
        }
        canvas.text(x + SWATCH, y + 12.5, &label, LABEL, Ink::Text, Align::Left);
        x += width + GAP;
    }
    if entries.is_empty() { 0.0 } else { y + ROW - top }
}

/// The entries of all runs that `shown` accepts, with the marks of their position in the report.
pub(crate) fn run_keys(
    canvas: &Canvas<'_>,
    data: &Data<'_>,
    shown: impl Fn(&Run<'_>) -> bool,
) -> Vec<(Key, String)> {
    let room = canvas.width - SWATCH;
    let common = data.common_beginning();
    let mut keys = Vec::new();
    if !common.is_empty() {
        keys.push((Key::Heading, format!("{}:", common.trim_end())));
    }
    keys.extend(data.runs.iter().enumerate().filter(|(_, run)| shown(run)).map(|(n, run)| {
        let name = run.fitted(room, |text| text_width(text, LABEL));
        // A name that had to be cut in the beginning stays as it is.
        let name = name.strip_prefix(common).map_or(name.clone(), str::to_owned);
        (Key::Mark(Marker::series(n), Ink::series(n)), name)
    }));
    keys
}
