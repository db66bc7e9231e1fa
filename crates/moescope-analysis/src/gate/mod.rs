//! The gate: did a change make anything worse?
//!
//! ```text
//! bench JSON, run directory -> Evidence     evidence.rs   facts and times by row
//! two of them               -> comparable   comparable.rs or an error that says why not
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
//! neither.

mod comparable;
mod evidence;
mod hard;
mod options;
mod soft;
mod verdict;

pub use comparable::{Across, GateError, comparable};
pub use evidence::{Evidence, EvidenceError, Kind, Row, TIMES, Timed};
pub use options::{FACTS, GateOptions, Limits, OptionsError};
pub use verdict::{Check, Outcome, Verdict};

use soft::{Series, Suspect};

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
    verdict.notes = comparable(base, new, across)?;
    verdict.checks = hard::check(base, new, &[], options);
    let series = soft::series(base, new);
    let (mut checks, suspects) = soft::check(&series, options);
    if !suspects.is_empty() {
        let agrees: Vec<(Suspect, String)> = match retry {
            Some((base, new)) => {
                comparable(base, new, across)?;
                soft::again(&suspects, &soft::series(base, new), options)
            }
            None => soft::halves(&suspects, &series, options),
        };
        soft::confirm(&mut checks, agrees);
    }
    verdict.checks.extend(checks);
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
    let pairs = look(|count| measure(Look::First, count), |_, _| true, options, across)?;
    let [(base, new), others @ ..] = pairs.as_slice() else {
        return Err(GateError::Empty { name: "no pairs".into() }.into());
    };
    let mut verdict = Verdict::new(&base.name, &new.name);
    verdict.notes = comparable(base, new, across)?;
    if pairs.len() > options.pairs {
        verdict.notes.push(format!(
            "the first {} pairs left intervals wider than the threshold: {} were measured",
            options.pairs,
            pairs.len()
        ));
    }
    verdict.checks = hard::check(base, new, others, options);
    let (mut checks, suspects) = soft::check(&soft::paired(&pairs), options);
    if !suspects.is_empty() {
        let suspected =
            |row: &str, name: &str| suspects.iter().any(|(r, n)| r == row && *n == name);
        let again = look(|count| measure(Look::Second, count), suspected, options, across)?;
        if !again.is_empty() {
            let agrees = soft::again(&suspects, &soft::paired(&again), options);
            soft::confirm(&mut checks, agrees);
        }
    }
    verdict.checks.extend(checks);
    Ok(verdict.finish()?)
}

/// Pairs until the intervals of the times that are `asked` for are narrow, or there are enough.
fn look<E: From<GateError>>(
    mut measure: impl FnMut(usize) -> Result<Option<Vec<Pair>>, E>,
    asked: impl Fn(&str, &str) -> bool,
    options: &GateOptions,
    across: Across,
) -> Result<Vec<Pair>, E> {
    let mut pairs: Vec<Pair> = Vec::new();
    let mut count = options.pairs;
    while count > 0 {
        let Some(more) = measure(count)?.filter(|more| !more.is_empty()) else { break };
        for (base, new) in &more {
            comparable(base, new, across)?;
        }
        pairs.extend(more);
        let mut times = soft::paired(&pairs);
        times.retain(|(row, name, _)| asked(row, name));
        if soft::are_narrow(&times, options) {
            break;
        }
        // Half as many again: few looks, and few pairs more than were needed.
        count = pairs.len().div_ceil(2).min(options.max_pairs.saturating_sub(pairs.len()));
    }
    Ok(pairs)
}

/// Times of one row and metric, side by side.
type Named = (String, &'static str, Series);
