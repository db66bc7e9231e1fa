//! What may be compared with what.

use moescope_trace::fingerprint::{Aspect, Difference};
use moescope_trace::manifest::labels;

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

/// Checks that two measurements compare; differences that may matter and don't forbid it are returned as
/// notes.
///
/// # Errors
///
/// [`GateError`].
pub fn comparable(
    base: &Evidence,
    new: &Evidence,
    across: Across,
) -> Result<Vec<String>, GateError> {
    let names = || (base.name.clone(), new.name.clone());
    if base.kind != new.kind {
        let (base_kind, new_kind) = (base.kind, new.kind);
        let (base, new) = names();
        return Err(GateError::Kinds { base, base_kind, new, new_kind });
    }
    let differences = base.fingerprint.differences(&new.fingerprint);
    let of = |aspect: Aspect| -> Vec<&Difference> {
        differences.iter().filter(|difference| difference.aspect == aspect).collect()
    };
    let text = |differences: &[&Difference]| {
        differences.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let mut notes = Vec::new();
    for (aspect, allowed, flag) in [
        (Aspect::Model, across.models, "--across-models"),
        (Aspect::Device, across.devices, "--across-devices"),
    ] {
        let found = of(aspect);
        if found.is_empty() {
            continue;
        }
        let differences = text(&found);
        if !allowed {
            let (base, new) = names();
            return Err(GateError::Conditions { base, new, differences, flag });
        }
        notes.push(format!("compared although conditions differ ({flag}): {differences}"));
    }
    let state = of(Aspect::State);
    if !state.is_empty() {
        notes.push(format!("the machine was in another state: {}", text(&state)));
    }
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
    for (one, other, whose) in [(base, new, &new.name), (new, base, &base.name)] {
        for row in one.rows.iter().filter(|row| other.row(&row.name).is_none()) {
            notes.push(format!("row {} is not in {whose} and was not compared", row.name));
        }
    }
    for one in [base, new] {
        let labels = labels(&one.fingerprint.model, &one.fingerprint.device);
        if !labels.is_empty() {
            notes.push(format!("{}: {}", one.name, labels.join(", ")));
        }
    }
    Ok(notes)
}
