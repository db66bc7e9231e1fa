//! From values to positions, and the ticks of an axis.

use crate::format;

/// Maps values to pixels, linearly or by logarithm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) log: bool,
    pub(crate) from: f64,
    pub(crate) to: f64,
}

impl Scale {
    /// Position of a value; values outside are held at the ends.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let (value, low, high) = if self.log {
            (value.max(f64::MIN_POSITIVE).ln(), self.low.ln(), self.high.ln())
        } else {
            (value, self.low, self.high)
        };
        if !value.is_finite() {
            return f64::NAN;
        }
        let share = if high > low { (value - low) / (high - low) } else { 0.5 };
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }
}

/// An axis: its range and where it is labelled.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) log: bool,
    /// Value and label.
    pub(crate) ticks: Vec<(f64, String)>,
    /// Name with unit.
    pub(crate) title: String,
}

impl Axis {
    /// A linear axis over `low..high`, widened to whole ticks.
    pub(crate) fn linear(title: &str, low: f64, high: f64, ticks: usize) -> Self {
        let (low, high) =
            if low.is_finite() && high.is_finite() { (low, high) } else { (0.0, 1.0) };
        let high = if high > low { high } else { low + 1.0 };
        let step = nice_step((high - low) / ticks.max(1) as f64);
        let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let count = (last - first).round() as usize;
        let ticks = (0..=count)
            .map(|n| {
                let value = (first + n as f64) * step;
                (value, format::fixed(value, decimals))
            })
            .collect();
        Self { low: first * step, high: last * step, log: false, ticks, title: title.into() }
    }

    /// A linear axis over `low..high` as it is, ticks only inside.
    pub(crate) fn tight(title: &str, low: f64, high: f64, ticks: usize) -> Self {
        let mut axis = Self::linear(title, low, high, ticks);
        axis.ticks.retain(|(value, _)| (low - 1e-9..=high + 1e-9).contains(value));
        (axis.low, axis.high) = (low, if high > low { high } else { low + 1.0 });
        axis
    }

    /// A logarithmic axis with ticks at 1, 2 and 5 times powers of ten, more within a decade, fewer over
    /// many.
    pub(crate) fn log(title: &str, low: f64, high: f64, ticks: usize) -> Self {
        let low = low.max(f64::MIN_POSITIVE);
        let high = high.max(low * 1.5);
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let inside = |factors: &[f64], every: i32| -> Vec<(f64, String)> {
            (first..=last)
                .filter(|decade| (decade - first) % every == 0)
                .flat_map(|decade| factors.iter().map(move |f| f * 10f64.powi(decade)))
                .filter(|value| (low * 0.999..=high * 1.001).contains(value))
                .map(|value| (value, short_label(value)))
                .collect()
        };
        let mut found = inside(&[1.0, 2.0, 5.0], 1);
        if found.len() < 4 {
            found = inside(&[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0], 1);
        }
        if found.len() > ticks {
            found = inside(&[1.0, 2.0, 5.0], 1);
        }
        if found.len() > ticks {
            found = inside(&[1.0], 1);
        }
        let mut every = 2;
        while found.len() > ticks && every < 20 {
            found = inside(&[1.0], every);
            every += 1;
        }
        Self { low, high, log: true, ticks: found, title: title.into() }
    }

    /// Whole numbers `low..=high` (layers, steps), half a unit of air at both ends.
    pub(crate) fn whole(title: &str, low: u32, high: u32, ticks: usize) -> Self {
        let ticks = whole_ticks(low, high, ticks)
            .into_iter()
            .map(|value| (f64::from(value), format::count(value.into())))
            .collect();
        Self {
            low: f64::from(low) - 0.5,
            high: f64::from(high) + 0.5,
            log: false,
            ticks,
            title: title.into(),
        }
    }

    /// The axis laid between two positions.
    pub(crate) fn scale(&self, from: f64, to: f64) -> Scale {
        Scale { low: self.low, high: self.high, log: self.log, from, to }
    }
}

/// One digit, two where there are two: 2, 1.5, 150.
fn short_label(value: f64) -> String {
    let one = format::significant(value, 1);
    let two = format::significant(value, 2);
    if two.strip_suffix('0').is_some_and(|cut| cut.trim_end_matches('.') == one) {
        one
    } else {
        two
    }
}

/// The smallest of 1, 2, 5 times a power of ten that is at least `rough`.
fn nice_step(rough: f64) -> f64 {
    if !(rough.is_finite() && rough > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

/// At most about `ticks` whole numbers in `low..=high`, at multiples of a nice step.
pub(crate) fn whole_ticks(low: u32, high: u32, ticks: usize) -> Vec<u32> {
    let span = high.saturating_sub(low);
    // Experts come in powers of two: 4, 8, 16 ... read better there than 5, 10, 20.
    let step = [1u32, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64]
        .into_iter()
        .find(|step| (span / step) as usize <= ticks)
        .unwrap_or_else(|| nice_step(f64::from(span) / ticks.max(1) as f64).ceil() as u32)
        .max(1);
    let first = low.div_ceil(step) * step;
    (first..=high).step_by(step as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_and_not_too_many() {
        assert_eq!(
            labels(&Axis::linear("", 0.0, 0.93, 5)),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(
            labels(&Axis::linear("", 0.0, 1834.0, 4)),
            ["0", "500", "1,000", "1,500", "2,000"]
        );
        assert_eq!(labels(&Axis::log("", 0.8, 120.0, 8)), ["1", "2", "5", "10", "20", "50", "100"]);
        assert_eq!(labels(&Axis::log("", 1.4, 6.5, 8)), ["1.5", "2", "3", "4", "5", "6"]);
        assert_eq!(
            labels(&Axis::log("", 1.0, 1e9, 5)),
            ["1", "100", "10,000", "1,000,000", "100,000,000"]
        );
        assert_eq!(whole_ticks(0, 255, 9), [0, 32, 64, 96, 128, 160, 192, 224]);
        assert_eq!(whole_ticks(7, 7, 5), [7]);
    }

    #[test]
    fn degenerate_ranges_still_have_an_axis() {
        for (low, high) in [(0.0, 0.0), (f64::NAN, 1.0), (3.0, 3.0), (0.0, f64::INFINITY)] {
            let axis = Axis::linear("", low, high, 5);
            assert!(axis.high > axis.low && !axis.ticks.is_empty());
        }
        let scale = Axis::whole("", 5, 5, 3).scale(0.0, 100.0);
        assert_eq!(scale.at(5.0), 50.0);
    }
}
