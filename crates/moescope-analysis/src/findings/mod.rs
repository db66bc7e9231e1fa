//! What stands out, in sentences with the numbers in them.

mod between;
mod caveats;
mod locality;
mod routing;
mod speed;
mod words;

use crate::analysis::Analysis;
use crate::bootstrap::{Z, deviate};
use crate::compare::Comparison;
use crate::row::MetricRow;

/// One thing that stands out. Texts may hold names of domains and runs as they were recorded:
/// untrusted, to be escaped where they are shown.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Finding {
    /// One sentence without a full stop.
    pub headline: String,
    /// What it rests on: base, interval, chance level. Whole sentences.
    pub detail: String,
    /// Id of the report figure that shows it, such as `utilisation` or `hit-rate`.
    pub figure: Option<&'static str>,
    /// The run it is about, as an index into the analyses: of two runs the one that is compared with the
    /// other. The figure shows it, though it may not have room for all.
    pub run: Option<usize>,
    /// The model layer it is about, where it names one.
    pub layer: Option<u16>,
    /// Size of the effect: the absolute natural logarithm of the ratio between a value and what was to
    /// be expected (its chance level, the other run, the bytes of the weights), so that a share, a
    /// speed and an entropy compare: 0.69 is twice or half. A mean log-probability and an information
    /// are logarithms of ratios already. A finding that is held against nothing has 0.
    pub effect: f64,
    /// Whether it is a reservation about the runs rather than a result. Reservations come first.
    pub caveat: bool,
}

/// Everything that stands out in runs analysed together, reservations first, then by effect size.
///
/// A difference is stated only where its interval excludes the level it is held against, and the
/// most extreme of many values only if it would be extreme among that many. Of several runs
/// that show one thing, the one that shows it most is named and the others are in the detail.
/// Nothing is said about the routing of random weights.
pub fn findings(analyses: &[Analysis], comparisons: &[Comparison]) -> Vec<Finding> {
    let mut findings = caveats::caveats(analyses);
    findings.extend(routing::findings(analyses));
    findings.extend(locality::findings(analyses));
    findings.extend(speed::findings(analyses));
    findings.extend(between::findings(analyses, comparisons));
    // Stable: equal effects stay in the order above.
    findings.sort_by(|a, b| b.caveat.cmp(&a.caveat).then(b.effect.total_cmp(&a.effect)));
    findings
}

/// Effect below which a difference may be real but tells nothing: a tenth more or less. Chance levels
/// are those of independent tokens, so the tokens of one text being alike shows up as a few
/// percent of unevenness.
const NOTABLE: f64 = 0.1;

/// What a value rests on, to judge whether it stands out.
#[derive(Clone, Copy)]
struct Basis {
    /// Sequences behind it.
    sequences: usize,
    /// Standard error if its tokens were independent: it is larger in truth, but estimated from few
    /// sequences it may come out smaller by luck.
    least_error: f64,
    /// Of how many values it is the most extreme.
    among: usize,
}

/// Whether a value differs from `level`: its distance must exceed the bound sqrt(2 ln(2n / 0.05))
/// that n standard normal values exceed with less than 5 % probability. Without an interval nothing
/// stands out.
fn stands_out(row: &MetricRow, level: f64, basis: Basis) -> bool {
    let Some((low, high)) = row.interval else {
        return false;
    };
    let distance = row.value - level;
    let reach = if distance > 0.0 { row.value - low } else { high - row.value };
    let reach = reach.max(basis.least_error * Z);
    let bound = (2.0 * (basis.among.max(1) as f64 / 0.025).ln()).sqrt();
    distance != 0.0 && deviate(distance, reach, basis.sequences) > bound
}

/// Standard error of a share of T independent tokens.
fn share_error(share: f64, tokens: f64) -> f64 {
    (share * (1.0 - share) / tokens.max(1.0)).max(0.0).sqrt()
}

/// Whether two values differ: their intervals do not overlap.
fn apart(a: &MetricRow, b: &MetricRow) -> bool {
    match (a.interval, b.interval) {
        (Some(a), Some(b)) => a.1 < b.0 || b.1 < a.0,
        _ => false,
    }
}

/// `a` over `b` as an effect size.
fn effect(a: f64, b: f64) -> f64 {
    if a > 0.0 && b > 0.0 { (a / b).ln().abs() } else { 0.0 }
}

/// Index of a run among those analysed together.
fn position(analyses: &[Analysis], analysis: &Analysis) -> Option<usize> {
    analyses.iter().position(|other| std::ptr::eq(other, analysis))
}

/// Where a sentence holds: ` in NAME [labels]` among several runs, ` [labels]` for one.
fn place(analyses: &[Analysis], analysis: &Analysis) -> String {
    let labels = analysis.labels();
    match (analyses.len(), labels.is_empty()) {
        (0 | 1, true) => String::new(),
        (0 | 1, false) => format!(" [{}]", labels.join(", ")),
        _ => format!(" in {}", analysis.labelled_name()),
    }
}

/// The same thing in the other runs: ` In B: 60 %. In C: 58 %.`
fn elsewhere(
    analyses: &[Analysis],
    chosen: &Analysis,
    value: impl Fn(&Analysis) -> Option<String>,
) -> String {
    /// More than this is for the table.
    const MOST: usize = 3;
    let others = analyses.iter().filter(|analysis| !std::ptr::eq(*analysis, chosen));
    others
        .filter_map(|analysis| {
            Some(format!(" In {}: {}.", analysis.labelled_name(), value(analysis)?))
        })
        .take(MOST)
        .collect()
}

/// The candidate with the largest effect; of equal ones the first.
fn strongest<T>(candidates: impl Iterator<Item = (f64, T)>) -> Option<(f64, T)> {
    candidates.reduce(|best, next| if next.0 > best.0 { next } else { best })
}
