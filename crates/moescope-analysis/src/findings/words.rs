//! Numbers as a reader wants them.

/// `61 %`, `12.5 %`, `6.25 %`: two or three digits that mean something.
pub(super) fn percent(share: f64) -> String {
    let value = share * 100.0;
    let text = match value.abs() {
        size if size >= 20.0 && share < 0.995 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    format!("{} %", trimmed(&text))
}

/// `3.4 times`.
pub(super) fn times(ratio: f64) -> String {
    let text = if ratio >= 20.0 { format!("{ratio:.0}") } else { format!("{ratio:.1}") };
    format!("{} times", trimmed(&text))
}

/// `3.4`, `0.87`, `12`: a plain number.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 999.5 => thousands(value.round() as u64),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// `35,210`.
pub(super) fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 expert`, `3 experts`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    format!("{} {noun}{}", thousands(count as u64), if count == 1 { "" } else { "s" })
}

/// `1.43 ms`.
pub(super) fn duration(nanoseconds: f64) -> String {
    let (value, unit) = match nanoseconds {
        ns if ns >= 1e9 => (ns / 1e9, "s"),
        ns if ns >= 1e6 => (ns / 1e6, "ms"),
        ns if ns >= 1e3 => (ns / 1e3, "µs"),
        ns => (ns, "ns"),
    };
    format!("{} {unit}", number(value))
}

/// `1.21 GiB`.
pub(super) fn bytes(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{value:.0} bytes")
    } else {
        format!("{} {}", number(value), UNITS[unit])
    }
}

/// `612 tokens/s`.
pub(super) fn rate(per_second: f64) -> String {
    format!("{} tokens/s", number(per_second))
}

/// ` (95 % interval 55 % to 66 %)`, or nothing.
pub(super) fn interval(interval: Option<(f64, f64)>, number: impl Fn(f64) -> String) -> String {
    interval.map_or_else(String::new, |(low, high)| {
        format!(" (95 % interval {} to {})", number(low), number(high))
    })
}

/// ` The 95 % interval over sequences is 55 % to 66 %.`, or nothing.
pub(super) fn interval_sentence(
    interval: Option<(f64, f64)>,
    number: impl Fn(f64) -> String,
) -> String {
    interval.map_or_else(String::new, |(low, high)| {
        format!(" The 95 % interval over sequences is {} to {}.", number(low), number(high))
    })
}

/// `a, b and c`.
pub(super) fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Without trailing zeros after a decimal point.
fn trimmed(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}
