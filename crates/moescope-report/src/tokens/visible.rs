//! Token texts made visible: a token may be a space, a newline, half a character or an attack.

use crate::sanitize::sanitize;

/// Longest token text shown; longer ones (runs of spaces, encoded data) end in an ellipsis.
const LONGEST: usize = 64;

/// A token's text as the token view shows it: never empty, nothing in it acts on the page, and what has
/// no width of its own has a sign.
pub(crate) fn visible(text: &str) -> String {
    if text.is_empty() {
        return "∅".into();
    }
    let invisible = |c: char| c.is_whitespace() || c.is_control() || ignorable(c);
    let blank = text.chars().all(invisible);
    // The signs of keyboards: fonts have them, other than the control pictures.
    let text = text.replace('\n', "↵").replace('\t', "⇥");
    if !blank {
        return crate::sanitize::short(&text, LONGEST);
    }
    // Only spaces and the like: each gets a sign, or the token could be neither seen nor hit.
    let mut shown = String::new();
    for character in text.chars().take(LONGEST) {
        match character {
            ' ' => shown.push('·'),
            '\u{a0}' => shown.push('⍽'),
            c if c.is_whitespace() && !c.is_control() || ignorable(c) => {
                shown.push_str(&format!("[U+{:04X}]", c as u32));
            }
            c => shown.push_str(&sanitize(c.encode_utf8(&mut [0; 4]))),
        }
    }
    if text.chars().count() > LONGEST {
        shown.push('…');
    }
    shown
}

/// Characters without a width of their own that belong into text, so that [`sanitize`] leaves them:
/// joiners, variation selectors, soft hyphens, fillers.
fn ignorable(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_has_a_sign() {
        assert_eq!(visible(" the"), " the");
        assert_eq!(visible("   "), "···");
        assert_eq!(visible(""), "∅");
        assert_eq!(visible("\n\n  "), "↵↵··");
        assert_eq!(visible("\u{200d}"), "[U+200D]");
        assert_eq!(visible("\u{202e}gpj"), "[U+202E]gpj");
        assert_eq!(visible("\u{3000}"), "[U+3000]");
        assert_eq!(visible("</script><b>"), "</script><b>");
        assert!(visible(&" ".repeat(500)).ends_with("·…"));
        // A joiner inside of an emoji stays: it shows.
        assert_eq!(visible("👩\u{200d}🚀"), "👩\u{200d}🚀");
    }
}
