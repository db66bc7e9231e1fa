//! Names of commands and metrics inside sentences, in backticks as in the sources.

use crate::markdown::markdown_escape;

/// A sentence in parts: text, and what stands in backticks. Only what can be a command or a name counts:
/// sentences hold texts of runs too.
fn parts(text: &str) -> Vec<(bool, &str)> {
    let name = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || " _-".contains(c))
    };
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('`') {
        let after = &rest[open + 1..];
        let Some(close) = after.find('`').filter(|&close| name(&after[..close])) else {
            // No name: the backtick is text.
            let (before, other) = rest.split_at(open + 1);
            parts.push((false, before));
            rest = other;
            continue;
        };
        parts.push((false, &rest[..open]));
        parts.push((true, &after[..close]));
        rest = &after[close + 1..];
    }
    parts.push((false, rest));
    parts
}

/// As HTML.
pub(crate) fn html(text: &str) -> String {
    let part = |(code, text)| match code {
        true => format!("<code>{text}</code>"),
        false => crate::canvas::escape(text),
    };
    parts(text).into_iter().map(part).collect()
}

/// As Markdown.
pub(crate) fn markdown(text: &str) -> String {
    let parts = parts(text);
    let mut prose = String::new();
    for (code, text) in parts {
        match code {
            true => prose.push_str(&format!("`{text}`")),
            // In the middle of a line no sign at the start of a part is a list's.
            false if prose.is_empty() => prose.push_str(&markdown_escape(text)),
            false => prose.push_str(&markdown_escape(&format!(".{text}"))[1..]),
        }
    }
    prose
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_code_and_everything_else_is_text() {
        let text = "<b> `moescope run --saliency` & `a|b` `<i>`";
        let shown = "&lt;b&gt; <code>moescope run --saliency</code> &amp; `a|b` `&lt;i&gt;`";
        assert_eq!(html(text), shown);
        assert_eq!(markdown(text), "\\<b> `moescope run --saliency` &amp; \\`a\\|b\\` \\`\\<i>\\`");
        assert_eq!(markdown("`"), "\\`");
        assert_eq!(markdown("`a` - b"), "`a` - b");
    }
}
