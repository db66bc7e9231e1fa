//! Findings as a reader wants them: the same thing seen in many runs is said once.

use moescope_analysis::{Analysis, Finding};

/// Findings that say the same of different runs together, in the order of the first of each: the one
/// with the largest effect leads. Reservations stand alone.
pub fn grouped<'f>(findings: &'f [Finding], analyses: &[Analysis]) -> Vec<Vec<&'f Finding>> {
    let mut names: Vec<String> = analyses.iter().map(Analysis::labelled_name).collect();
    // A name may be part of another: the longer ones go first.
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    let mut groups: Vec<(String, Vec<&Finding>)> = Vec::new();
    for finding in findings {
        let statement = statement(&finding.headline, &names);
        let known = groups.iter_mut().find(|(known, group)| {
            let first = group[0];
            !finding.caveat
                && !first.caveat
                && finding.figure == first.figure
                && *known == statement
        });
        match known {
            Some((_, group)) => group.push(finding),
            None => groups.push((statement, vec![finding])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// A headline without the names of runs and without numbers.
fn statement(headline: &str, names: &[String]) -> String {
    let mut text = headline.to_owned();
    for name in names.iter().filter(|name| !name.is_empty()) {
        text = text.replace(name.as_str(), "•");
    }
    let number = |c: char| c.is_ascii_digit() || matches!(c, '.' | ',' | '-');
    text.chars().filter(|&c| !number(c)).collect()
}

/// Typographic signs that analyses, which write for terminals too, do without: a real minus, and no
/// line break between a number and its percent sign.
pub(crate) fn typeset(text: &str) -> String {
    let mut set = String::with_capacity(text.len() + 16);
    let mut characters = text.chars().peekable();
    let mut previous = ' ';
    while let Some(character) = characters.next() {
        let next = characters.peek().copied();
        let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        set.push(match character {
            '-' if matches!(previous, ' ' | '(') && digit(next) => '−',
            ' ' if previous.is_ascii_digit() && next == Some('%') => '\u{a0}',
            other => other,
        });
        previous = character;
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_set_as_numbers() {
        assert_eq!(
            typeset("5 % (-3.5 to -2) of top-4, a-1"),
            "5\u{a0}% (−3.5 to −2) of top-4, a-1"
        );
    }
}
