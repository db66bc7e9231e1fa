//! Bench results beside runs: the rows of `moescope bench`, summed up for figures and tables.
//!
//! A row is a configuration (prompt, tokens generated, depth, batch) with raw samples. Prompt processing
//! (pp) and token generation (tg) are told apart: one row can measure both.

use moescope_analysis::stats::{median, median_interval, quartile_spread};
use moescope_trace::BenchResult;
use moescope_trace::bench::{BenchRow, Configuration};
use moescope_trace::manifest;

use crate::data::tagged;
use crate::format::count;
use crate::sanitize::short;

/// One result of `moescope bench`.
pub(crate) struct Bench<'a> {
    /// Sanitised and distinct within the report.
    pub(crate) name: String,
    /// As those of a run: `random weights`, `software adapter`, ...
    pub(crate) tags: Vec<&'static str>,
    pub(crate) result: &'a BenchResult,
    pub(crate) rows: Vec<Row<'a>>,
}

/// One configuration.
pub(crate) struct Row<'a> {
    pub(crate) row: &'a BenchRow,
    /// Prompt processing, where a prompt was read.
    pub(crate) prompt: Option<Rate>,
    /// Token generation, where tokens were generated.
    pub(crate) generation: Option<Rate>,
}

/// What a rate is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Prompt,
    Generation,
}

/// Tokens per second over the samples of a row.
#[derive(Clone, Debug)]
pub(crate) struct Rate {
    /// Median of the samples.
    pub(crate) median: f64,
    /// 95 % bootstrap interval of the median; none of few samples.
    pub(crate) interval: Option<(f64, f64)>,
    /// Slowest and fastest sample.
    pub(crate) range: (f64, f64),
    /// Distance of the quartiles over the median; none of one sample.
    pub(crate) spread: Option<f64>,
    pub(crate) samples: usize,
    /// Bytes that had to be read per second over the measured peak, where both are known.
    pub(crate) mbu: Option<f64>,
    /// Operations per second over the measured peak.
    pub(crate) mfu: Option<f64>,
}

impl<'a> Bench<'a> {
    /// Results under names of their models, told apart by their devices and then by numbers.
    pub(crate) fn all(results: &'a [BenchResult]) -> Vec<Self> {
        let mut benches: Vec<Self> = Vec::with_capacity(results.len());
        for result in results {
            let (model, device) = (&result.fingerprint.model, &result.fingerprint.device);
            let base = format!("{} ({}, {})", short(&model.name, 40), model.dtype, device.backend);
            let base = short(&base, 64);
            let mut name = base.clone();
            let mut number = 2;
            while benches.iter().any(|bench| bench.name == name) {
                name = format!("{base} ({number})");
                number += 1;
            }
            let tags = manifest::labels(model, device);
            let rows = result.rows.iter().map(|row| Row::new(row, result)).collect();
            benches.push(Self { name, tags, result, rows });
        }
        benches
    }

    /// The name with its labels.
    pub(crate) fn tagged(&self) -> String {
        tagged(&self.name, &self.tags)
    }
}

impl<'a> Row<'a> {
    fn new(row: &'a BenchRow, result: &BenchResult) -> Self {
        let facts = &row.facts;
        let other = |name: &str| facts.other.get(name).copied();
        let rate = |ns: Vec<f64>, bytes: Option<f64>, operations: Option<f64>| {
            let mut rate = Rate::new(&ns)?;
            let share = |work: Option<f64>, peak: Option<f64>| Some(work? * rate.median / peak?);
            let peaks = result.peaks.as_ref();
            let mbu = share(bytes, peaks.map(|peaks| peaks.read_bytes_per_second));
            let mfu = share(operations, peaks.map(|peaks| peaks.flops));
            (rate.mbu, rate.mfu) = (mbu, mfu);
            Some(rate)
        };
        Self {
            row,
            prompt: rate(
                row.prefill_ns_per_token(),
                other("prefill_bytes_per_token"),
                other("prefill_flops_per_token"),
            ),
            generation: rate(
                row.decode_ns_per_token(),
                facts.bytes_per_token,
                other("decode_flops_per_token"),
            ),
        }
    }

    pub(crate) fn rate(&self, phase: Phase) -> Option<&Rate> {
        match phase {
            Phase::Prompt => self.prompt.as_ref(),
            Phase::Generation => self.generation.as_ref(),
        }
    }

    pub(crate) fn configuration(&self) -> &'a Configuration {
        &self.row.configuration
    }
}

impl Rate {
    fn new(ns_per_token: &[f64]) -> Option<Self> {
        let rates: Vec<f64> = ns_per_token.iter().map(|ns| 1e9 / ns).collect();
        let middle = median(&mut rates.clone())?;
        let mut sorted = rates.clone();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            median: middle,
            interval: median_interval(&rates),
            range: (sorted[0], sorted[sorted.len() - 1]),
            spread: quartile_spread(&rates),
            samples: rates.len(),
            mbu: None,
            mfu: None,
        })
    }
}

/// A configuration in the words of llama-bench, without the part that `but` leaves out: `pp512, batch 1`,
/// `tg128 @ d4096, batch 4`. Its workload is [`Data::workload`]'s business.
///
/// [`Data::workload`]: crate::data::Data::workload
pub(crate) fn test(configuration: &Configuration, phase: Phase, but: Vary) -> String {
    let Configuration { prompt, generate, depth, batch, .. } = configuration;
    let mut text = match phase {
        Phase::Prompt if but == Vary::Prompt => "pp".to_owned(),
        Phase::Prompt => format!("pp{prompt}"),
        Phase::Generation => format!("tg{generate}"),
    };
    // Generation goes on from a prompt that was read in the same pass.
    if phase == Phase::Generation && *prompt > 0 && but != Vary::Prompt {
        text.push_str(&format!(" after\u{a0}pp{prompt}"));
    }
    if *depth > 0 && but != Vary::Depth {
        text.push_str(&format!(" @\u{a0}d{depth}"));
    }
    if but != Vary::Batch {
        text.push_str(&format!(", batch\u{a0}{}", count((*batch).into())));
    }
    text
}

/// What a figure varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vary {
    Batch,
    Depth,
    Prompt,
    Nothing,
}

impl Vary {
    /// Where a configuration lies on the axis.
    pub(crate) fn of(self, configuration: &Configuration) -> f64 {
        f64::from(match self {
            Vary::Batch => configuration.batch,
            Vary::Depth => configuration.depth,
            Vary::Prompt => configuration.prompt,
            Vary::Nothing => 0,
        })
    }
}
