//! Text inside Markdown: shown as it is, never as markup.

use std::fmt::Write as _;

use crate::sanitize::sanitize;

/// Escapes text for CommonMark and GitHub's dialect, in prose and in table cells.
///
/// ```
/// assert_eq!(moescope_report::markdown_escape("**x** <b> a|b"), r"\*\*x\*\* \<b> a\|b");
/// assert_eq!(moescope_report::markdown_escape("max_vio 1.5"), "max_vio 1.5");
/// ```
pub fn markdown_escape(text: &str) -> String {
    let text = sanitize(text);
    let characters: Vec<char> = text.chars().collect();
    let mut escaped = String::with_capacity(text.len() + 8);
    // A list or heading marker acts only at the start of a line, and a text may be put there.
    let marker = characters.iter().take_while(|c| c.is_ascii_digit()).count();
    for (at, &character) in characters.iter().enumerate() {
        let previous = at.checked_sub(1).map(|before| characters[before]);
        let next = characters.get(at + 1).copied();
        let word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let acts = match character {
            '\\' | '`' | '*' | '[' | ']' | '<' | '|' | '~' | '$' => true,
            // Inside a word an underscore is a letter.
            '_' => !(word(previous) && word(next)),
            '#' | '+' | '-' | '=' | '>' => at == 0,
            '.' | ')' => at == marker && marker > 0 && !word(next),
            // Links that GitHub would make by itself.
            ':' => next == Some('/'),
            _ => false,
        };
        match character {
            '&' => escaped.push_str("&amp;"),
            _ => {
                if acts {
                    escaped.push('\\');
                }
                escaped.push(character);
            }
        }
    }
    escaped.replace("www.", "www\\.")
}

/// A code block that its content cannot close.
pub(crate) fn fenced(text: &str) -> String {
    let text = sanitize(text);
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat((longest + 1).max(3));
    let mut block = String::new();
    // Writing to a String cannot fail.
    let _ = write!(block, "{fence}\n{text}\n{fence}");
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_shows_as_text() {
        assert_eq!(markdown_escape("<script>alert(1)</script>"), "\\<script>alert(1)\\</script>");
        assert_eq!(markdown_escape("[a](javascript:b)"), "\\[a\\](javascript:b)");
        assert_eq!(markdown_escape("![x](y)"), "!\\[x\\](y)");
        assert_eq!(markdown_escape("`code` ~~x~~ $1$"), "\\`code\\` \\~\\~x\\~\\~ \\$1\\$");
        assert_eq!(markdown_escape("&lt; _a_"), "&amp;lt; \\_a\\_");
        assert_eq!(markdown_escape("# head"), "\\# head");
        assert_eq!(markdown_escape("1. item"), "1\\. item");
        assert_eq!(markdown_escape("- item\n# x"), "\\- item␊# x");
        assert_eq!(markdown_escape("https://x.y www.z"), "https\\://x.y www\\.z");
        assert_eq!(markdown_escape("1.25 of 3,000 (−4)"), "1.25 of 3,000 (−4)");
    }

    #[test]
    fn a_fence_is_longer_than_what_it_holds() {
        assert_eq!(fenced("a ```` b"), "`````\na ```` b\n`````");
        assert_eq!(fenced("a\n```"), "````\na␊```\n````");
    }
}
