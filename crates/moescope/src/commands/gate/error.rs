//! That nothing was compared, in the forms that have little to say about it.

use moescope_report::{markdown_escape, sanitize};

pub(super) fn text(said: &str) -> String {
    format!("error: {}\n", sanitize(said))
}

pub(super) fn markdown(said: &str) -> String {
    format!("### moescope gate: error, nothing was compared\n\n{}\n\n", markdown_escape(said))
}

/// A document that has `error` in the place of a verdict.
pub(super) fn json(said: &str) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(&serde_json::json!({ "error": said }))? + "\n")
}
