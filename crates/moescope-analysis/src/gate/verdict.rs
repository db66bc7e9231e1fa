//! What the gate says.

use serde::Serialize;

use super::GateError;

/// One thing checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// The row.
    pub row: String,
    /// What was checked: a fact, or `prefill`, `decode`.
    pub metric: &'static str,
    /// Whether any difference counts, or statistics decide.
    pub hard: bool,
    /// Value of the base, with its unit.
    pub base: String,
    /// New value, with its unit.
    pub new: String,
    /// New over base, where both are numbers.
    pub ratio: Option<f64>,
    /// 95 % interval of the ratio.
    pub interval: Option<(f64, f64)>,
    /// p of the rank test, after Benjamini-Hochberg.
    pub p: Option<f64>,
    /// What is allowed, in words.
    pub limit: String,
    /// What came out.
    pub outcome: Outcome,
    /// Why, where it needs saying.
    pub note: Option<String>,
}

/// What came out of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Worse than allowed.
    Regressed,
    /// Looked worse, and a second look did not agree.
    Suspected,
    /// Nothing could be said: not measured on one side, or too few samples. Fails nothing and proves nothing.
    Undecided,
    /// Better by more than the threshold.
    Improved,
    /// Within the limits.
    Passed,
}

impl Outcome {
    /// The word for tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Regressed => "regressed",
            Outcome::Suspected => "suspected",
            Outcome::Undecided => "undecided",
            Outcome::Improved => "improved",
            Outcome::Passed => "passed",
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Name of the base.
    pub base: String,
    /// Name of the new measurement.
    pub new: String,
    /// Whether anything got worse than allowed.
    pub regressed: bool,
    /// Everything checked, what matters most first.
    pub checks: Vec<Check>,
    /// What a reader should know about the comparison.
    pub notes: Vec<String>,
    /// Pairs of the first and of the second look, where measurements were taken in pairs.
    pub pairs: Option<[usize; 2]>,
}

impl Verdict {
    pub(super) fn new(base: &str, new: &str) -> Self {
        Self {
            base: base.to_owned(),
            new: new.to_owned(),
            regressed: false,
            checks: Vec::new(),
            notes: Vec::new(),
            pairs: None,
        }
    }

    /// Orders the checks and draws the conclusion.
    pub(super) fn finish(mut self) -> Result<Self, GateError> {
        if self.checks.is_empty() {
            return Err(GateError::Empty { name: format!("{} and {}", self.base, self.new) });
        }
        if self.checks.iter().all(|check| check.outcome == Outcome::Undecided) {
            let why = self.checks.iter().find_map(|check| check.note.clone()).unwrap_or_default();
            return Err(GateError::Undecided { base: self.base, new: self.new, why });
        }
        self.checks.sort_by_key(|check| check.outcome as u8);
        self.regressed = self.checks.iter().any(|check| check.outcome == Outcome::Regressed);
        Ok(self)
    }

    /// Number of checks with an outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.checks.iter().filter(|check| check.outcome == outcome).count()
    }

    /// The answer in one line.
    pub fn headline(&self) -> String {
        let count = |outcome| self.count(outcome);
        let mut text = match count(Outcome::Regressed) {
            0 => format!("passed: {} of {} checks", count(Outcome::Passed), self.checks.len()),
            n => format!("regressed: {n} of {} checks", self.checks.len()),
        };
        for outcome in [Outcome::Suspected, Outcome::Undecided, Outcome::Improved] {
            if count(outcome) > 0 {
                text.push_str(&format!(", {} {}", count(outcome), outcome.as_str()));
            }
        }
        text
    }
}
