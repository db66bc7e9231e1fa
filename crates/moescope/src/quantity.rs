//! Sizes, bandwidths and times as they are typed: `8GiB`, `25GB/s`, `10us`.

use std::str::FromStr;

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bytes(pub(crate) f64);

/// Bytes per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bandwidth(pub(crate) f64);

/// Seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seconds(pub(crate) f64);

const BYTE_UNITS: &[(&str, f64)] = &[
    ("B", 1.0),
    ("kB", 1e3),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("KiB", 1024.0),
    ("MiB", 1048576.0),
    ("GiB", 1073741824.0),
    ("TiB", 1099511627776.0),
];

const TIME_UNITS: &[(&str, f64)] =
    &[("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)];

/// A number and a unit; without a unit it is in the base unit.
fn parse(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim();
    // The longest unit that fits: "MiB" ends in "B" too.
    let unit =
        units.iter().filter(|(name, _)| text.ends_with(name)).max_by_key(|(name, _)| name.len());
    let (number, factor) = match unit {
        Some((name, factor)) => (text.strip_suffix(name)?, *factor),
        None => (text, 1.0),
    };
    let number: f64 = number.trim().parse().ok()?;
    (number >= 0.0 && number.is_finite()).then_some(number * factor)
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected bytes such as 8GiB (2^30), 8GB (10^9) or 300MiB";
        parse(text, BYTE_UNITS).map(Self).ok_or_else(|| expected.to_owned())
    }
}

impl FromStr for Bandwidth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected bytes per second above 0, such as 25GB/s or 450GB/s";
        let bytes = text.trim().strip_suffix("/s").unwrap_or(text);
        let found = parse(bytes, BYTE_UNITS).filter(|bytes| *bytes > 0.0);
        found.map(Self).ok_or_else(|| expected.to_owned())
    }
}

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, TIME_UNITS)
            .map(Self)
            .ok_or_else(|| "expected a time such as 10us or 2ms".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!("8GiB".parse(), Ok(Bytes(8.0 * 1073741824.0)));
        assert_eq!(" 1.5 MB".parse(), Ok(Bytes(1.5e6)));
        assert_eq!("300".parse(), Ok(Bytes(300.0)));
        assert_eq!("0B".parse(), Ok(Bytes(0.0)));
        assert_eq!("25GB/s".parse(), Ok(Bandwidth(25e9)));
        assert_eq!("2.5e10".parse(), Ok(Bandwidth(2.5e10)));
        assert_eq!("10us".parse(), Ok(Seconds(10.0 * 1e-6)));
        assert_eq!("2 ms".parse(), Ok(Seconds(2.0 * 1e-3)));
    }

    #[test]
    fn what_is_no_quantity() {
        for text in ["", "GiB", "8G", "-1GiB", "inf", "NaNMB", "8GiB/s", "1e400"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
        for text in ["0GB/s", "25Gbit/s", "/s", "25GB/min"] {
            assert!(text.parse::<Bandwidth>().is_err(), "{text}");
        }
        assert!("10 minutes".parse::<Seconds>().is_err());
    }
}
