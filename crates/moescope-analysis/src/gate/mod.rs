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
//! 3. a second look agrees. Where times can be taken again ([`judge_pairs`] with `retry`) it is a fresh
//!    set of pairs that has to pass 1 and 2 by itself. Files can't be measured again: there the earlier
//!    and the later half of the samples must each show a ratio beyond the threshold, so that a
//!    disturbance during one part of a measurement raises no alarm; or a second pair of files is given.

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

/// Compares measurements taken in pairs (base, new). `retry` is called when times look worse, and gives
/// as many pairs again; `None` from it makes the first look final.
///
/// # Errors
///
/// [`GateError`]: the two don't compare; or the error of `retry`.
pub fn judge_pairs<E: From<GateError>>(
    pairs: &[(Evidence, Evidence)],
    retry: impl FnOnce() -> Result<Option<Vec<(Evidence, Evidence)>>, E>,
    options: &GateOptions,
    across: Across,
) -> Result<Verdict, E> {
    let [(base, new), others @ ..] = pairs else {
        return Err(GateError::Empty { name: "no pairs".into() }.into());
    };
    let mut verdict = Verdict::new(&base.name, &new.name);
    verdict.notes = comparable(base, new, across)?;
    for (base, new) in others {
        comparable(base, new, across)?;
    }
    verdict.checks = hard::check(base, new, others, options);
    let (mut checks, suspects) = soft::check(&soft::paired(pairs), options);
    if !suspects.is_empty()
        && let Some(again) = retry()?
    {
        let agrees = soft::again(&suspects, &soft::paired(&again), options);
        soft::confirm(&mut checks, agrees);
    }
    verdict.checks.extend(checks);
    Ok(verdict.finish()?)
}

/// Times of one row and metric, side by side.
type Named = (String, &'static str, Series);
