//! The verdict for a step summary or a comment.

use moescope_analysis::gate::{Outcome, Verdict};
use moescope_report::markdown_escape;

use super::text::{HEADER, cells};

/// GitHub refuses a step summary of 1 MiB; some room is left for what else is in it.
const MOST_BYTES: usize = 1_000_000;

pub(super) fn render(verdict: &Verdict) -> String {
    let (base, new) = (markdown_escape(&verdict.base), markdown_escape(&verdict.new));
    let mut text = format!("### moescope gate: {}\n\n", verdict.headline());
    text.push_str(&format!("{new} against {base}\n\n"));
    for note in verdict.notes.iter().take(20) {
        text.push_str(&format!("> {}\n\n", markdown_escape(note)));
    }
    text.push_str(&format!("| {} |\n|{}\n", HEADER.join(" | "), " --- |".repeat(HEADER.len())));
    for (at, check) in verdict.checks.iter().enumerate() {
        let mut cells = cells(check).map(|cell| markdown_escape(&cell));
        if check.outcome == Outcome::Regressed {
            let last = &mut cells[HEADER.len() - 1];
            *last = format!("**{last}**");
        }
        let mut line = format!("| {} |\n", cells.join(" | "));
        if let Some(note) = &check.note {
            line = line.replace(" |\n", &format!(": {} |\n", markdown_escape(note)));
        }
        if text.len() + line.len() > MOST_BYTES {
            let left = verdict.checks.len() - at;
            text.push_str(&format!("\n{left} more checks are left out.\n"));
            break;
        }
        text.push_str(&line);
    }
    text
}
