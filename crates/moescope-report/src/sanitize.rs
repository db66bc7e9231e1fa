//! Untrusted text made visible: prompts, domains, model and run names may hold anything.

use std::borrow::Cow;

/// Replaces every character that would act rather than show: C0 and C1 controls (terminal escapes,
/// newlines, tabs), bidirectional overrides, zero-width spaces and characters XML cannot hold.
///
/// C0 controls become their control pictures (`ESC` becomes `␛`), the rest their code point in
/// brackets (`[U+202E]`), so that a reader sees that something was there. The result is one line, fit
/// for a terminal, and still needs the escaping of the format it is written into.
///
/// ```
/// assert_eq!(moescope_report::sanitize("a\u{1b}[31mb\n"), "a␛[31mb␊");
/// ```
pub fn sanitize(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\0'..='\u{1f}' => {
                // The control pictures block has the C0 controls in order.
                shown.push(char::from_u32(0x2400 + character as u32).unwrap_or('\u{fffd}'));
            }
            '\u{7f}' => shown.push('\u{2421}'),
            _ if acts(character) => shown.push_str(&format!("[U+{:04X}]", character as u32)),
            _ => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

/// Whether a character changes how the text around it is shown instead of showing itself.
fn acts(character: char) -> bool {
    matches!(character,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'              // C0, DEL, C1
        | '\u{61c}' | '\u{200e}' | '\u{200f}'               // bidi marks
        | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' // bidi embeddings, overrides, isolates
        | '\u{2028}' | '\u{2029}'                           // line and paragraph separators
        | '\u{200b}' | '\u{2060}' | '\u{feff}'              // zero-width space, word joiner, BOM
        | '\u{fffe}' | '\u{ffff}'                           // not allowed in XML
        | '\u{e0000}'..='\u{e007f}'                         // invisible tag characters
    )
}

/// [`sanitize`], then cut to at most `max` characters with an ellipsis at the end.
pub(crate) fn short(text: &str, max: usize) -> String {
    let shown = sanitize(text);
    if shown.chars().count() <= max {
        return shown.into_owned();
    }
    let mut cut: String = shown.chars().take(max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// A command line as a shell would take it again, on one line.
pub fn shell_command(arguments: &[String]) -> String {
    let quoted: Vec<String> = arguments
        .iter()
        .map(|argument| {
            let plain = !argument.is_empty()
                && argument.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=+,@%".contains(c));
            if plain { argument.clone() } else { format!("'{}'", argument.replace('\'', r"'\''")) }
        })
        .collect();
    sanitize(&quoted.join(" ")).into_owned()
}
