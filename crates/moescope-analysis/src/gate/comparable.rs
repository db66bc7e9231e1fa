//! What may be compared with what.

use moescope_trace::fingerprint::{Aspect, Difference, Fingerprint};

use super::evidence::{Evidence, Kind};

/// Which differences of conditions are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Across {
    /// `--across-devices`: devices, drivers and machines may differ.
    pub devices: bool,
    /// `--across-models`: weights, types and implementations may differ.
    pub models: bool,
}

/// Why two measurements don't compare.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The conditions differ.
    #[error(
        "{base} and {new} are not comparable: {differences}; measure both under the same conditions, or pass \
         {flag} to compare them all the same"
    )]
    Conditions {
        /// Name of the base.
        base: String,
        /// Name of the new one.
        new: String,
        /// What differs.
        differences: String,
        /// The option that allows it.
        flag: &'static str,
    },
    /// Measurements that are taken together as one side are of another build, or of other conditions.
    #[error(
        "{later} was not measured as {first} was: {differences}; what counts as one side has to be one build under \
         the same conditions"
    )]
    OneSide {
        /// The first measurement.
        first: String,
        /// The one that differs.
        later: String,
        /// What differs.
        differences: String,
    },
    /// One is a run, the other a bench result.
    #[error("{base} is a {base_kind}, {new} is a {new_kind}; compare two of one kind")]
    Kinds {
        /// Name of the base.
        base: String,
        /// Its kind.
        base_kind: Kind,
        /// Name of the new one.
        new: String,
        /// Its kind.
        new_kind: Kind,
    },
    /// No row of one is in the other.
    #[error(
        "{base} and {new} have no row in common: {base_rows} against {new_rows}; measure both with \
         the same options"
    )]
    Rows {
        /// Name of the base.
        base: String,
        /// Its rows.
        base_rows: String,
        /// Name of the new one.
        new: String,
        /// Its rows.
        new_rows: String,
    },
    /// Runs over different prompts, or of settings that compute other tokens.
    #[error("{base} ({base_task}) and {new} ({new_task}) did different things; record both alike")]
    Task {
        /// Name of the base.
        base: String,
        /// What it did.
        base_task: String,
        /// Name of the new one.
        new: String,
        /// What that did.
        new_task: String,
    },
    /// Rows of one name over other tokens.
    #[error(
        "row {row} of {base} and of {new} read different tokens: other prompts, another seed, or another recorded \
         run; measure both with the same workload"
    )]
    Workload {
        /// Name of the base.
        base: String,
        /// Name of the new one.
        new: String,
        /// The row.
        row: String,
    },
    /// Nothing to judge.
    #[error("{name}: nothing was measured that could be compared")]
    Empty {
        /// What is empty.
        name: String,
    },
    /// Checks, and none of them decides anything.
    #[error("nothing could be decided between {base} and {new}: {why}")]
    Undecided {
        /// Name of the base.
        base: String,
        /// Name of the new one.
        new: String,
        /// Why not, of the first check.
        why: String,
    },
    /// A time that can't be.
    #[error("{name}, row {row}: a {time} time is {found}; expected a positive number")]
    BadTime {
        /// Name of the measurement.
        name: String,
        /// The row.
        row: String,
        /// Which time.
        time: &'static str,
        /// The value.
        found: f64,
    },
}

/// Checks that the conditions of two measurements compare. Differences that are allowed are said; those of
/// states forbid nothing and are returned as they are.
pub(super) fn conditions(
    base: &Evidence,
    new: &Evidence,
    across: Across,
) -> Result<(Vec<String>, Vec<Difference>), GateError> {
    same_kind(base, new)?;
    let mut differences = base.fingerprint.differences(&new.fingerprint);
    let mut allowed = Vec::new();
    for (aspect, wanted, flag) in [
        (Aspect::Model, across.models, "--across-models"),
        (Aspect::Device, across.devices, "--across-devices"),
    ] {
        let (found, rest): (Vec<_>, Vec<_>) =
            differences.into_iter().partition(|difference| difference.aspect == aspect);
        differences = rest;
        if found.is_empty() {
            continue;
        }
        let differences = in_words(&found);
        if !wanted {
            let (base, new) = (base.name.clone(), new.name.clone());
            return Err(GateError::Conditions { base, new, differences, flag });
        }
        allowed.push(format!("compared although conditions differ ({flag}): {differences}"));
    }
    Ok((allowed, differences))
}

/// Checks that a further measurement of one side is of the same build, under the same conditions and of the
/// same task as the first.
pub(super) fn one_side(first: &Evidence, later: &Evidence) -> Result<(), GateError> {
    same_kind(first, later)?;
    one_build((&first.name, &first.fingerprint), (&later.name, &later.fingerprint))?;
    same_task(first, later)
}

/// Checks that two results which count as one are of one build under the same conditions.
pub(super) fn one_build(
    (first, conditions): (&str, &Fingerprint),
    (later, others): (&str, &Fingerprint),
) -> Result<(), GateError> {
    let mut differences = conditions.differences(others);
    differences.retain(|difference| difference.aspect != Aspect::State);
    let mut differences: Vec<String> = differences.iter().map(ToString::to_string).collect();
    let builds = [conditions, others].map(|fingerprint| {
        let commit = fingerprint.git_commit.as_deref().unwrap_or("unknown commit");
        format!("{} ({commit})", fingerprint.moescope_version)
    });
    let [one, other] = &builds;
    if one != other {
        differences.push(format!("moescope: {one} against {other}"));
    }
    if differences.is_empty() {
        return Ok(());
    }
    let (first, later) = (first.to_owned(), later.to_owned());
    Err(GateError::OneSide { first, later, differences: differences.join(", ") })
}

fn in_words(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn same_kind(base: &Evidence, new: &Evidence) -> Result<(), GateError> {
    if base.kind == new.kind {
        return Ok(());
    }
    let (base_kind, new_kind) = (base.kind, new.kind);
    let (base, new) = (base.name.clone(), new.name.clone());
    Err(GateError::Kinds { base, base_kind, new, new_kind })
}

/// Checks that two measurements did the same things: prompts, rows, tokens.
pub(super) fn same_task(base: &Evidence, new: &Evidence) -> Result<(), GateError> {
    let names = || (base.name.clone(), new.name.clone());
    if base.task != new.task {
        let task = |evidence: &Evidence| evidence.task.clone().unwrap_or_else(|| "unknown".into());
        let (base_task, new_task) = (task(base), task(new));
        let (base, new) = names();
        return Err(GateError::Task { base, base_task, new, new_task });
    }
    if !base.rows.iter().any(|row| new.row(&row.name).is_some()) {
        let rows = |evidence: &Evidence| {
            let names: Vec<&str> = evidence.rows.iter().map(|row| row.name.as_str()).collect();
            names.join(", ")
        };
        let (base_rows, new_rows) = (rows(base), rows(new));
        let (base, new) = names();
        return Err(GateError::Rows { base, base_rows, new, new_rows });
    }
    for row in &base.rows {
        let read = new.row(&row.name).and_then(|other| other.workload.as_ref());
        if row.workload.as_ref().zip(read).is_some_and(|(base, new)| base != new) {
            let row = row.name.clone();
            let (base, new) = names();
            return Err(GateError::Workload { base, new, row });
        }
    }
    Ok(())
}
