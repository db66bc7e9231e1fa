//! The figures of a report. A new one is one file here and one line in [`FIGURES`].

mod balance;
mod coactivation;
mod confidence;
mod curves;
mod distinct;
mod divergence;
mod hit_rate;
mod hit_rate_speed;
mod latency;
mod lorenz;
mod memory;
mod overlap;
mod path;
mod placement;
mod pruning;
mod reuse;
mod specialisation;
mod throughput;
mod utilisation;
mod utilisation_difference;
mod vocabulary;
mod working_set;

use serde::Serialize;

use crate::canvas::Canvas;
use crate::data::Data;
use crate::table::Table;

/// All figures, in the order of their sections on the page.
pub(crate) const FIGURES: &[Figure] = &[
    overlap::FIGURE,
    utilisation_difference::FIGURE,
    utilisation::FIGURE,
    balance::FIGURE,
    lorenz::FIGURE,
    specialisation::FIGURE,
    divergence::FIGURE,
    vocabulary::FIGURE,
    confidence::FIGURE,
    coactivation::FIGURE,
    path::FIGURE,
    reuse::FIGURE,
    working_set::FIGURE,
    hit_rate::FIGURE,
    hit_rate_speed::FIGURE,
    placement::FIGURE,
    pruning::FIGURE,
    latency::FIGURE,
    throughput::FIGURE,
    distinct::FIGURE,
    memory::FIGURE,
];

/// Width of a figure on a desktop page, CSS pixels.
pub(crate) const WIDE: f64 = 860.0;
/// Width of a figure on a phone of 390 pixels.
pub(crate) const NARROW: f64 = 358.0;

/// Runs beyond which small multiples (one map or panel per run) show only the first.
const MAX_MULTIPLES: usize = 8;

/// One figure: everything a page needs to show it.
pub(crate) struct Figure {
    /// Name of its files and anchor: `utilisation` is `figures/utilisation.png` and `#fig-utilisation`.
    pub(crate) id: &'static str,
    /// Heading.
    pub(crate) title: &'static str,
    /// Section it stands in, as [`crate::sections::SECTIONS`] names it.
    pub(crate) section: &'static str,
    /// `Err` says, as the end of a sentence, why there is nothing to draw: "not recorded".
    pub(crate) applicable: fn(&Data<'_>) -> Result<(), String>,
    /// What to see, in sentences with the numbers in them.
    pub(crate) caption: fn(&Data<'_>) -> Caption,
    /// Draws the figure `canvas.width` wide, from the top; returns the height used. It is called only
    /// when `applicable`, several times, and draws the same each time.
    pub(crate) draw: fn(&Canvas<'_>, &Data<'_>) -> f64,
    /// The numbers behind it.
    pub(crate) table: fn(&Data<'_>) -> Table,
}

/// The text under a figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Caption {
    /// How to read the figure and what limits it.
    reading: String,
    /// What it shows, a sentence or two per run.
    facts: Vec<String>,
}

/// Runs beyond which a caption no longer speaks of each.
const MAX_FACTS: usize = 4;

impl Caption {
    fn new(reading: impl Into<String>) -> Self {
        Self { reading: reading.into(), facts: Vec::new() }
    }

    /// Adds a fact about one run; those of the first few runs are kept.
    fn fact(&mut self, fact: impl Into<String>) {
        if self.facts.len() < MAX_FACTS {
            self.facts.push(fact.into());
        }
    }

    fn note(mut self, note: &str) -> Self {
        self.reading.push_str(note);
        self
    }
}

/// The interval of a share, in percent.
fn share_interval(interval: Option<(f64, f64)>) -> String {
    interval.map_or(crate::format::NOTHING.into(), |(low, high)| {
        format!("{} – {}", crate::format::percent(low), crate::format::percent(high))
    })
}

/// "The first 8 of 20 runs are drawn." when that is so.
fn multiples_note(data: &Data<'_>) -> String {
    let runs = data.runs.len();
    if runs > MAX_MULTIPLES {
        format!(" The first {MAX_MULTIPLES} of {runs} runs are drawn; the table has all.")
    } else {
        String::new()
    }
}

/// A warning when the runs were made on different devices: their speed and memory do not compare.
fn devices_note(data: &Data<'_>) -> String {
    let devices = data.devices();
    if devices.len() < 2 {
        return String::new();
    }
    " The runs were made on different devices, so a difference between them need not be one of the \
     program."
        .into()
}
