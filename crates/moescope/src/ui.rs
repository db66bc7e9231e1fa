//! What a person sees: notes, progress, errors, tables.

use std::{
    borrow::Cow,
    io::{IsTerminal, Write},
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use moescope_report::sanitize;

/// The command line as a user would type it again: the name of the program, not where it lies.
pub(crate) fn command_line() -> Vec<String> {
    let rest = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    std::iter::once("moescope".to_owned()).chain(rest).collect()
}

/// A note on stderr.
pub(crate) fn note(text: impl AsRef<str>) {
    let mut stderr = std::io::stderr().lock();
    // A closed stderr is no reason to stop.
    let _ = writeln!(stderr, "{}", sanitize(text.as_ref()));
}

/// An error with its causes in one text, hints last.
pub(crate) fn error_text(error: &anyhow::Error) -> String {
    let mut text = format!("{error}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Transparent wrappers repeat what they wrap.
        if !text.contains(&cause) {
            text.push_str(&format!(": {cause}"));
        }
    }
    text
}

/// An error with its causes on stderr.
pub(crate) fn print_error(error: &anyhow::Error) {
    let text = error_text(error);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let label = if colour { "\u{1b}[1;31merror\u{1b}[0m" } else { "error" };
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "{label}: {}", sanitize(&text));
}

/// A result on stdout. A reader that went away (`| head`) ends the program quietly.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    print_bytes(text.as_bytes())
}

/// As [`print()`], for a result that need not be text. CSV and JSON carry prompts and names as they are: on a
/// terminal what would act there is shown instead.
pub(crate) fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let shown = match (stdout.is_terminal(), std::str::from_utf8(bytes)) {
        (true, Ok(text)) => Cow::Owned(harmless(text).into_bytes()),
        _ => Cow::Borrowed(bytes),
    };
    match stdout.write_all(&shown).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Lines with everything made visible that a terminal would obey.
fn harmless(text: &str) -> String {
    let lines: Vec<Cow<'_, str>> = text.split('\n').map(sanitize).collect();
    lines.join("\n")
}

/// A result into a file, or to stdout where it is `-`.
pub(crate) fn deliver(bytes: &[u8], output: &Path) -> anyhow::Result<()> {
    if output == Path::new("-") {
        return print_bytes(bytes);
    }
    std::fs::write(output, bytes).with_context(|| format!("cannot write {}", output.display()))
}

/// Refuses to fill a terminal with a Parquet file.
pub(crate) fn refuse_binary(output: &Path) -> anyhow::Result<()> {
    if output == Path::new("-") && std::io::stdout().is_terminal() {
        bail!("--format parquet: it is no text; name a file with -o FILE, or redirect stdout");
    }
    Ok(())
}

/// A bar over `len` units on a terminal; nothing elsewhere.
pub(crate) fn progress(len: u64, label: &str, unit: Unit) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr_with_hz(10));
    let template = match unit {
        Unit::Bytes => "{msg:<24} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        Unit::Tokens => "{msg:<24} {wide_bar} {human_pos}/{human_len} tokens {per_sec} {eta}",
    };
    // The templates are fixed and valid; the default style is the harmless fallback.
    bar.set_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.set_message(sanitize(label).into_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// What a bar counts.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Bytes,
    Tokens,
}

/// ` [a, b]`, or nothing where there are none: what follows a name whose numbers need a label.
pub(crate) fn bracketed<L: AsRef<str>>(labels: &[L]) -> String {
    let labels: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
    match labels.is_empty() {
        true => String::new(),
        false => format!(" [{}]", labels.join(", ")),
    }
}

/// Rows as aligned columns: the first left, the others right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (i, (cell, width)) in cells.zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count().min(*width));
            match i {
                0 => text.push_str(&format!("{cell}{pad}")),
                _ => text.push_str(&format!("  {pad}{cell}")),
            }
        }
        text.trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut header.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// Rows as CSV (RFC 4180).
pub(crate) fn csv(header: &[&str], rows: impl IntoIterator<Item = impl AsRef<[String]>>) -> String {
    let field = |cell: &str| match cell.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.to_owned(),
    };
    let mut text = header.join(",") + "\n";
    for row in rows {
        let cells: Vec<String> = row.as_ref().iter().map(|cell| field(cell)).collect();
        text.push_str(&(cells.join(",") + "\n"));
    }
    text
}

/// A count with thousands separators.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest unit that keeps a digit before the point.
pub(crate) fn bytes(n: u64) -> String {
    moescope_model::capacity::bytes(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(6_180_422), "6,180,422");
        assert_eq!(bytes(12), "12 B");
        assert_eq!(bytes(24 * 1024 * 1024), "24.0 MiB");
    }

    #[test]
    fn a_terminal_is_told_nothing_by_data() {
        let csv = "domain,value\n\"a\u{1b}]0;owned\u{7}\",1\n\u{202e}b,2\n";
        assert_eq!(harmless(csv), "domain,value\n\"a␛]0;owned␇\",1\n[U+202E]b,2\n");
    }

    #[test]
    fn tables_align_and_csv_quotes() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["long".into(), "12,5".into()]];
        assert_eq!(table(&["part", "n"], &rows), "part     n\na        1\nlong  12,5\n");
        assert_eq!(csv(&["part", "n"], &rows), "part,n\na,1\nlong,\"12,5\"\n");
    }
}
