//! The figures of a report. A new one is one file here and one line in [`FIGURES`].

mod balance;
mod bench_batch;
mod bench_curves;
mod bench_depth;
mod bench_experts;
mod bench_prompt;
mod bench_utilisation;
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
mod predictability;
mod pruning;
mod reuse;
mod specialisation;
mod throughput;
mod utilisation;
mod utilisation_difference;
mod vocabulary;
mod working_set;

use crate::canvas::Canvas;
use crate::data::{Data, Run};
use crate::format::{count, list};
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
    predictability::FIGURE,
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
    bench_batch::FIGURE,
    bench_depth::FIGURE,
    bench_prompt::FIGURE,
    bench_utilisation::FIGURE,
    bench_experts::FIGURE,
    memory::FIGURE,
];

/// Width of a figure on a desktop page, CSS pixels.
pub(crate) const WIDE: f64 = 860.0;
/// Width of a figure on a phone of 390 pixels.
pub(crate) const NARROW: f64 = 358.0;

/// Runs beyond which small multiples (one map or panel per run) show some only: see [`Data::drawn`].
const MAX_MULTIPLES: usize = 6;

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
#[derive(Clone, Debug)]
pub(crate) struct Caption {
    /// How to read the figure and what limits it.
    pub(crate) reading: String,
    facts: Vec<Fact>,
    /// Runs of which nothing is said.
    further: usize,
}

/// What a figure shows, a sentence or two about a run.
#[derive(Clone, Debug)]
struct Fact {
    text: String,
    /// The text without the name of the run: runs of which the same is said share a fact.
    nameless: String,
    /// The other runs it holds of.
    also: Vec<String>,
}

/// Runs beyond which a caption no longer speaks of each.
const MAX_FACTS: usize = 4;

impl Caption {
    fn new(reading: impl Into<String>) -> Self {
        Self { reading: reading.into(), facts: Vec::new(), further: 0 }
    }

    /// Adds a fact about a run, which names it. What was said of another run already is not repeated,
    /// and of many runs the first are spoken of.
    fn fact(&mut self, run: &Run<'_>, text: impl Into<String>) {
        self.said_of(&run.tagged(), text.into());
    }

    /// [`Caption::fact`] about something that is no run.
    fn said_of(&mut self, name: &str, text: String) {
        // Names are sanitised: none holds this character.
        let nameless = text.replacen(name, "\u{1}", 1);
        let full = self.facts.len() == MAX_FACTS;
        match self.facts.iter_mut().find(|known| known.nameless == nameless) {
            Some(known) => known.also.push(name.to_owned()),
            None if full => self.further += 1,
            None => self.facts.push(Fact { text, nameless, also: vec![] }),
        }
    }

    /// The facts as they are printed.
    pub(crate) fn sentences(&self) -> Vec<String> {
        let mut sentences: Vec<String> = self
            .facts
            .iter()
            .map(|fact| match fact.also.len() {
                0 => fact.text.clone(),
                n if n <= MAX_FACTS => {
                    format!("{} The same holds of {}.", fact.text, list(&fact.also))
                }
                n => format!("{} The same holds of {} others.", fact.text, count(n as u64)),
            })
            .collect();
        if self.further > 0 {
            let more = count(self.further as u64);
            sentences.push(format!("{more} more: see the numbers."));
        }
        sentences
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

/// Which of the runs that are `able` a figure with room for `most` draws, where those are not all.
fn drawn_note(
    data: &Data<'_>,
    figure: &str,
    most: usize,
    able: impl Fn(&Run<'_>) -> bool,
) -> String {
    let all: Vec<&Run<'_>> = data.runs.iter().filter(|run| able(run)).collect();
    if all.len() <= most {
        return String::new();
    }
    let drawn = data.drawn(figure, most, |run| able(run));
    let first = drawn.iter().zip(&all).all(|(a, b)| std::ptr::eq(*a, *b));
    let which = match first {
        true => format!("The first {most} of {} runs are drawn", all.len()),
        false => format!(
            "{most} of {} runs are drawn, those that a finding names and the first of the others",
            all.len()
        ),
    };
    format!(" {which}; the table has all.")
}

/// Which runs a figure lacks, for runs that were recorded differently.
fn missing_note(data: &Data<'_>, shown: impl Fn(&Run<'_>) -> bool) -> String {
    let missing: Vec<String> =
        data.runs.iter().filter(|run| !shown(run)).map(Run::tagged).collect();
    match missing.len() {
        0 => String::new(),
        n if n <= MAX_FACTS => format!(" Not recorded in {}.", list(&missing)),
        n => format!(" Not recorded in {} runs.", count(n as u64)),
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
