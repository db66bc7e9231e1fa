//! The verdict as a badge (the endpoint format of shields.io).

use moescope_analysis::gate::{Outcome, Verdict};

pub(super) fn render(verdict: &Verdict) -> anyhow::Result<String> {
    let regressed = verdict.count(Outcome::Regressed);
    let improved = verdict.count(Outcome::Improved);
    let undecided = verdict.count(Outcome::Undecided);
    let (message, colour) = match (regressed, undecided, improved) {
        (0, 0, 0) => ("passed".to_owned(), "brightgreen"),
        (0, 0, n) => (format!("passed, {n} improved"), "brightgreen"),
        (0, n, _) => (format!("passed, {n} undecided"), "yellowgreen"),
        (n, ..) => (format!("{n} regressed"), "red"),
    };
    of(&message, colour)
}

/// Nothing was compared.
pub(super) fn error() -> anyhow::Result<String> {
    of("error", "lightgrey")
}

fn of(message: &str, colour: &str) -> anyhow::Result<String> {
    let badge = serde_json::json!({
        "schemaVersion": 1,
        "label": "moescope gate",
        "message": message,
        "color": colour,
    });
    Ok(serde_json::to_string(&badge)? + "\n")
}
