//! The verdict as a badge (the endpoint format of shields.io).

use moescope_analysis::gate::{Outcome, Verdict};

pub(super) fn render(verdict: &Verdict) -> anyhow::Result<String> {
    let regressed = verdict.count(Outcome::Regressed);
    let improved = verdict.count(Outcome::Improved);
    let (message, colour) = match (regressed, improved) {
        (0, 0) => ("passed".to_owned(), "brightgreen"),
        (0, n) => (format!("passed, {n} improved"), "brightgreen"),
        (n, _) => (format!("{n} regressed"), "red"),
    };
    let badge = serde_json::json!({
        "schemaVersion": 1,
        "label": "moescope gate",
        "message": message,
        "color": colour,
    });
    Ok(serde_json::to_string(&badge)? + "\n")
}
