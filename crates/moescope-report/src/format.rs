//! Numbers as a reader wants them: three significant digits, units, thousands separators.

/// What stands where a number is not known.
pub(crate) const NOTHING: &str = "–";

/// A count with thousands separators: `12,345`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Three significant digits, no exponent between 0.0001 and 10^15: `0.0312`, `1.25`, `48.1`, `1,234`.
pub(crate) fn number(value: f64) -> String {
    significant(value, 3)
}

/// `digits` significant digits, whole numbers never cut.
pub(crate) fn significant(value: f64, digits: i32) -> String {
    if !value.is_finite() {
        return NOTHING.into();
    }
    if value == 0.0 {
        return "0".into();
    }
    let magnitude = value.abs().log10().floor() as i32;
    if !(-4..15).contains(&magnitude) {
        return format!("{value:.*e}", (digits - 1).max(0) as usize).replace('-', "−");
    }
    let decimals = (digits - 1 - magnitude).max(0) as usize;
    fixed(value, decimals)
}

/// A fixed number of decimals with thousands separators and a real minus sign.
pub(crate) fn fixed(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return NOTHING.into();
    }
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut shown = String::new();
    if value < 0.0 && text.bytes().any(|b| (b'1'..=b'9').contains(&b)) {
        shown.push('−');
    }
    match whole.parse::<u64>() {
        Ok(whole) => shown.push_str(&count(whole)),
        Err(_) => shown.push_str(whole),
    }
    if !fraction.is_empty() {
        shown.push('.');
        shown.push_str(fraction);
    }
    shown
}

/// A share as a percentage: `12.3 %`.
pub(crate) fn percent(share: f64) -> String {
    if !share.is_finite() {
        return NOTHING.into();
    }
    let value = share * 100.0;
    let decimals = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{}\u{a0}%", fixed(value, decimals))
}

/// A unit and the factor that turns a base value into it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Unit {
    /// As printed.
    pub(crate) name: &'static str,
    /// Base units in one of it.
    pub(crate) factor: f64,
}

/// The unit in which a time of about `ns` nanoseconds reads best.
pub(crate) fn time_unit(ns: f64) -> Unit {
    match ns.abs() {
        v if v >= 1e9 => Unit { name: "s", factor: 1e9 },
        v if v >= 1e6 => Unit { name: "ms", factor: 1e6 },
        v if v >= 1e3 => Unit { name: "µs", factor: 1e3 },
        _ => Unit { name: "ns", factor: 1.0 },
    }
}

/// The unit in which about `bytes` bytes read best.
pub(crate) fn byte_unit(bytes: f64) -> Unit {
    const KIB: f64 = 1024.0;
    match bytes.abs() {
        v if v >= KIB.powi(4) => Unit { name: "TiB", factor: KIB.powi(4) },
        v if v >= KIB.powi(3) => Unit { name: "GiB", factor: KIB.powi(3) },
        v if v >= KIB.powi(2) => Unit { name: "MiB", factor: KIB.powi(2) },
        v if v >= KIB => Unit { name: "KiB", factor: KIB },
        _ => Unit { name: "B", factor: 1.0 },
    }
}

fn with_unit(value: f64, unit: Unit) -> String {
    if !value.is_finite() {
        return NOTHING.into();
    }
    format!("{}\u{a0}{}", number(value / unit.factor), unit.name)
}

/// Nanoseconds with a fitting unit: `1.23 ms`.
pub(crate) fn duration(ns: f64) -> String {
    with_unit(ns, time_unit(ns))
}

/// Bytes with a fitting binary unit: `1.50 GiB`.
pub(crate) fn bytes(bytes: f64) -> String {
    with_unit(bytes, byte_unit(bytes))
}

/// Large counts in words: `25.2 billion`, `4.77 million`.
pub(crate) fn big_count(value: u64) -> String {
    let float = value as f64;
    match value {
        1_000_000_000_000.. => format!("{} trillion", number(float / 1e12)),
        1_000_000_000.. => format!("{} billion", number(float / 1e9)),
        1_000_000.. => format!("{} million", number(float / 1e6)),
        _ => count(value),
    }
}

/// `low – high`, or nothing where there is no interval.
pub(crate) fn interval(interval: Option<(f64, f64)>) -> String {
    match interval {
        Some((low, high)) => format!("{} – {}", number(low), number(high)),
        None => NOTHING.into(),
    }
}

/// `1 run`, `3 runs`.
pub(crate) fn plural(value: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(value), if value == 1 { "" } else { "s" })
}

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
