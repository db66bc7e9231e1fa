//! The verdict for a terminal.

use moescope_analysis::gate::{Check, Verdict};
use moescope_report::sanitize;

use crate::ui;

pub(super) const HEADER: [&str; 8] =
    ["row", "metric", "base", "new", "ratio", "interval", "p", "outcome"];

pub(super) fn render(verdict: &Verdict) -> String {
    let rows: Vec<Vec<String>> = verdict
        .checks
        .iter()
        .map(|check| cells(check).into_iter().map(|cell| sanitize(&cell).into_owned()).collect())
        .collect();
    let mut text = ui::table(&HEADER, &rows);
    for check in verdict.checks.iter().filter(|check| check.note.is_some()) {
        let note = check.note.as_deref().unwrap_or_default();
        let said = format!("{}, {}: {note}", check.row, check.metric);
        text.push_str(&format!("- {}\n", sanitize(&said)));
    }
    for note in &verdict.notes {
        text.push_str(&format!("note: {}\n", sanitize(note)));
    }
    text + &format!("{}\n", verdict.headline())
}

/// One check as the cells of [`HEADER`].
pub(super) fn cells(check: &Check) -> [String; 8] {
    [
        check.row.clone(),
        check.metric.to_owned(),
        check.base.clone(),
        check.new.clone(),
        check.ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}")),
        interval(check),
        check.p.map_or_else(String::new, p_value),
        format!("{} ({})", check.outcome.as_str(), check.limit),
    ]
}

pub(super) fn interval(check: &Check) -> String {
    check.interval.map_or_else(String::new, |(low, high)| format!("{low:.3} to {high:.3}"))
}

/// A p-value with two digits, small ones as a bound.
fn p_value(p: f64) -> String {
    if p < 1e-4 { "< 0.0001".into() } else { format!("{p:.4}") }
}
