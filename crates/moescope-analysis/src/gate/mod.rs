//! The gate: did a change make anything worse?
//!
//! ```text
//! bench JSON, run directory -> Evidence     evidence.rs   facts and times by row
//! two of them               -> comparable   comparable.rs or an error that says why not
//!                           -> Remarks      remarks.rs    what a reader should know
//!   facts                   -> hard checks  hard.rs       deterministic: any difference counts
//!   times                   -> soft checks  soft.rs       noise: statistics decide
//!                           -> Verdict      verdict.rs
//! ```
//!
//! **Hard checks** look at what the same program does again exactly: greedy tokens, routing, balance of
//! the experts, bytes held, bytes read per token, dispatches. They fail beyond the limits of
//! [`Limits`], which are tight.
//!
//! **Soft checks** look at times. One fails only if all of this is true:
//!
//! 1. a rank test finds the new times larger (Mann-Whitney for independent samples, signed-rank for
//!    pairs; one-sided), with p below the significance after Benjamini-Hochberg over all times;
//! 2. the whole 95 % interval of the ratio lies beyond the practical threshold (5 % by default): a
//!    difference that is certain and small is no regression;
//! 3. a second look agrees. Where times can be taken again ([`judge_pairs`]) it is a fresh set of pairs
//!    that has to pass 1 and 2 by itself. Files can't be measured again: there the earlier and the later
//!    half of the samples must each show a ratio beyond the threshold, so that a disturbance during one
//!    part of a measurement raises no alarm; or a second pair of files is given.
//!
//! How many pairs a look needs depends on the machine. It starts with [`GateOptions::pairs`] and takes more
//! until no interval is wider than the threshold, up to [`GateOptions::max_pairs`]. Only the width decides, not
//! which side looks slower (fixed-width intervals: Chow and Robbins 1965), so looking again and again favours
//! neither. And it takes as many as the rank test needs to find one time worse among all of them.
//!
//! A time that looks worse on samples too few for the test is undecided, never passed.

mod comparable;
mod evidence;
mod hard;
mod options;
mod remarks;
mod soft;
mod verdict;

pub use comparable::{Across, GateError};
pub use evidence::{Evidence, EvidenceError, Kind, Row, TIMES, Timed};
pub(crate) use hard::{PROMPT_BYTES, prompt_bytes};
pub use options::{FACTS, GateOptions, Limits, OptionsError};
pub use verdict::{Check, Outcome, Verdict};

use comparable::one_side;
use remarks::Remarks;
use soft::{Second, Series};

/// Compares a base with a new measurement, `retry` with a second pair of them.
///
/// # Errors
///
/// [`GateError`]: the two don't compare.
pub fn judge(
    base: &Evidence,
    new: &Evidence,
    retry: Option<(&Evidence, &Evidence)>,
    options: &GateOptions,
    across: Across,
) -> Result<Verdict, GateError> {
    let mut verdict = Verdict::new(&base.name, &new.name);
    let mut remarks = Remarks::default();
    remarks.add(base, new, across)?;
    verdict.notes = remarks.into_notes();
    // Whether it is needed or not: what was given to compare has to compare.
    if let Some((again, new_again)) = retry {
        let mut remarks = Remarks::default();
        one_side(base, again)?;
        one_side(new, new_again)?;
        remarks.add(again, new_again, across)?;
        remarks.add_later(base, again);
        remarks.add_later(new, new_again);
        for note in remarks.into_notes() {
            verdict.notes.push(format!("second measurements: {note}"));
        }
    }
    verdict.checks = hard::check(base, new, &[], options);
    let series = soft::series(base, new);
    let (mut checks, suspects) = soft::check(&series, options);
    if !suspects.is_empty() {
        let second: Vec<Second> = match retry {
            Some((base, new)) => soft::again(&suspects, &soft::series(base, new), options),
            None => soft::halves(&suspects, &series, options),
        };
        soft::confirm(&mut checks, second);
    }
    verdict.checks.extend(checks);
    verdict.notes.extend(soft::blind(&series, options));
    verdict.notes.extend(hard::not_recorded(base, new, options));
    verdict.finish()
}

/// A base and a new measurement, one right after the other.
pub type Pair = (Evidence, Evidence);

/// What pairs are measured for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// To see whether times look worse.
    First,
    /// To see whether those that did look worse again.
    Second,
}

/// Compares measurements taken in pairs. `measure` is asked for a number of pairs, for more of them while
/// intervals are wider than the threshold, and for others when times look worse. `None` from it means that
/// there are no more: without a second look the first is final.
///
/// # Errors
///
/// [`GateError`]: the two don't compare, or there is no pair; or the error of `measure`.
pub fn judge_pairs<E: From<GateError>>(
    mut measure: impl FnMut(Look, usize) -> Result<Option<Vec<Pair>>, E>,
    options: &GateOptions,
    across: Across,
) -> Result<Verdict, E> {
    let mut remarks = Remarks::default();
    let pairs =
        look(|count| measure(Look::First, count), |_, _| true, options, across, &mut remarks)?;
    let [(base, new), others @ ..] = pairs.as_slice() else {
        return Err(GateError::Empty { name: "no pairs".into() }.into());
    };
    let mut verdict = Verdict::new(&base.name, &new.name);
    let series = soft::paired(&pairs);
    let mut said = Vec::new();
    if pairs.len() > options.pairs {
        let (first, all) = (options.pairs, pairs.len());
        let needed = soft::pairs_needed(series.len(), options);
        said.push(match all <= needed {
            true => format!("{all} pairs were measured: {first} are too few for {} times", series.len()),
            false => format!(
                "the first {first} pairs left intervals wider than the threshold: {all} were measured"
            ),
        });
    }
    verdict.checks = hard::check(base, new, others, options);
    let (mut checks, suspects) = soft::check(&series, options);
    let mut of_second = 0;
    if !suspects.is_empty() {
        let suspected =
            |row: &str, name: &str| suspects.iter().any(|(r, n)| r == row && *n == name);
        let more = |count| measure(Look::Second, count);
        let again = look(more, suspected, options, across, &mut remarks)?;
        if let Some((base_again, new_again)) = again.first() {
            one_side(base, base_again)?;
            one_side(new, new_again)?;
        }
        of_second = again.len();
        if !again.is_empty() {
            soft::confirm(&mut checks, soft::again(&suspects, &soft::paired(&again), options));
        }
    }
    verdict.pairs = Some([pairs.len(), of_second]);
    verdict.checks.extend(checks);
    verdict.notes = remarks.into_notes();
    verdict.notes.append(&mut said);
    verdict.notes.extend(soft::blind(&series, options));
    verdict.notes.extend(hard::not_recorded(base, new, options));
    Ok(verdict.finish()?)
}

/// Pairs until the intervals of the times that are `asked` for are narrow and the rank test can find one of them
/// worse, or there are as many as are allowed.
fn look<E: From<GateError>>(
    mut measure: impl FnMut(usize) -> Result<Option<Vec<Pair>>, E>,
    asked: impl Fn(&str, &str) -> bool,
    options: &GateOptions,
    across: Across,
    remarks: &mut Remarks,
) -> Result<Vec<Pair>, E> {
    let mut pairs: Vec<Pair> = Vec::new();
    let most = options.max_pairs.max(options.pairs);
    let mut count = options.pairs;
    while count > 0 {
        let Some(more) = measure(count)?.filter(|more| !more.is_empty()) else { break };
        let taken = more.len();
        pairs.extend(more);
        let (first_base, first_new) = &pairs[0];
        for (base, new) in &pairs[pairs.len() - taken..] {
            remarks.add(base, new, across)?;
            one_side(first_base, base)?;
            one_side(first_new, new)?;
        }
        let mut times = soft::paired(&pairs);
        times.retain(|(row, name, _)| asked(row, name));
        let missing = soft::pairs_needed(times.len(), options).saturating_sub(pairs.len());
        // Half as many again: few looks, and few pairs more than were needed.
        let wider = if soft::are_narrow(&times, options) { 0 } else { pairs.len().div_ceil(2) };
        count = wider.max(missing).min(most.saturating_sub(pairs.len()));
    }
    Ok(pairs)
}

/// Times of one row and metric, side by side.
type Named = (String, &'static str, Series);
