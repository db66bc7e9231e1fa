//! The verdict as annotations of a GitHub workflow.
//!
//! A workflow command is one line, `::error title=T::MESSAGE`; `%`, line ends and, in properties, `:` and
//! `,` are percent-escaped. GitHub shows ten of each kind per step.

use moescope_analysis::gate::{Check, Outcome, Verdict};

const MOST: usize = 10;

pub(super) fn render(verdict: &Verdict) -> String {
    let wanted = [Outcome::Regressed, Outcome::Suspected, Outcome::Undecided];
    let found: Vec<&Check> =
        verdict.checks.iter().filter(|check| wanted.contains(&check.outcome)).collect();
    // One annotation is kept for the notes; the last line says what else there is.
    let most = MOST - usize::from(!verdict.notes.is_empty());
    let shown = if found.len() > most { most - 1 } else { found.len() };
    let mut text = String::new();
    for check in &found[..shown] {
        let kind = if check.outcome == Outcome::Regressed { "error" } else { "warning" };
        let title = format!("moescope: {} of {}", check.metric, check.row);
        text.push_str(&annotation(kind, &title, &message(check)));
    }
    if found.len() > shown {
        let rest = format!("{} more; the step summary has all", found.len() - shown);
        // The worst come first: what is left may be nothing that failed.
        let worse = found[shown].outcome == Outcome::Regressed;
        text.push_str(&annotation(if worse { "error" } else { "warning" }, "moescope", &rest));
    }
    if found.is_empty() {
        text.push_str(&annotation("notice", "moescope", &verdict.headline()));
    }
    if !verdict.notes.is_empty() {
        text.push_str(&annotation("notice", "moescope: notes", &verdict.notes.join("\n")));
    }
    text
}

/// Nothing was compared.
pub(super) fn error(said: &str) -> String {
    annotation("error", "moescope: nothing was compared", said)
}

/// One check in a sentence.
pub(super) fn message(check: &Check) -> String {
    let mut text = format!("{}: {} against {}", check.outcome.as_str(), check.new, check.base);
    if let Some(ratio) = check.ratio {
        text.push_str(&format!(", ratio {ratio:.3}"));
    }
    if check.interval.is_some() {
        text.push_str(&format!(" (95 % interval {})", super::text::interval(check)));
    }
    text.push_str(&format!("; allowed: {}", check.limit));
    match &check.note {
        Some(note) => format!("{text}; {note}"),
        None => text,
    }
}

fn annotation(kind: &str, title: &str, message: &str) -> String {
    format!("::{kind} title={}::{}\n", property(title), data(message))
}

/// Line ends escaped, other control characters left out.
fn data(text: &str) -> String {
    let kept = |c: &char| !c.is_control() || matches!(c, '\n' | '\r');
    let text: String = text.chars().filter(kept).collect();
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_starts_a_command() {
        let line = annotation("error", "a:b,c\n::warning::x", "50 %\r\n\u{1b}::error::y");
        assert_eq!(
            line,
            "::error title=a%3Ab%2Cc%0A%3A%3Awarning%3A%3Ax::50 %25%0D%0A::error::y\n"
        );
    }
}
