//! Thresholds: `moescope.toml`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Names of the facts that hard checks look at, as in `ignore`.
pub const FACTS: &[&str] = &[
    "completed",
    "tokens",
    "routing",
    "balance",
    "peak_bytes",
    "bytes_per_token",
    super::hard::PROMPT_BYTES,
    "dispatches",
];

/// The `[gate]` table of `moescope.toml`.
///
/// ```toml
/// [gate]
/// threshold = 0.05        # a time may grow by this share
/// significance = 0.05     # of the rank tests, after Benjamini-Hochberg
/// pairs = 10              # of `gate --run A --vs B`, at least
/// max_pairs = 100         # at most: more are measured while an interval is wider than the threshold, or the
///                         # rank test needs more for so many times
/// ignore = []             # facts that are not checked
///
/// [gate.times]            # thresholds of single times
/// prefill = 0.05
/// decode = 0.05
///
/// [gate.limits]
/// routing_overlap = 1.0   # share of equal experts at least (runs; bench results are equal or not)
/// balance = 0.01          # change of the load's coefficient of variation, as a share
/// peak_bytes = 0.01       # growth of bytes in use, as a share
/// bytes_per_token = 0.001 # of a decode pass and of the prompt's
/// dispatches = 0.0
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GateOptions {
    /// Practical threshold: the share by which a time may grow.
    pub threshold: f64,
    /// Significance level after Benjamini-Hochberg.
    pub significance: f64,
    /// Pairs of measurements a look starts with.
    pub pairs: usize,
    /// Pairs a look ends with at the latest, if that is more than [`GateOptions::pairs`].
    pub max_pairs: usize,
    /// Facts that are not checked, of [`FACTS`].
    pub ignore: Vec<String>,
    /// Thresholds of single times.
    pub times: TimeThresholds,
    /// Limits of the hard checks.
    pub limits: Limits,
}

/// Thresholds of single times; [`GateOptions::threshold`] where there is none.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeThresholds {
    /// Time per prompt token.
    pub prefill: Option<f64>,
    /// Time per generated token.
    pub decode: Option<f64>,
}

/// Limits of the hard checks.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Least routing overlap, in `0..=1`.
    pub routing_overlap: f64,
    /// Change of the coefficient of variation of the experts' load, as a share.
    pub balance: f64,
    /// Growth of the peak of bytes in use, as a share.
    pub peak_bytes: f64,
    /// Growth of bytes read per token, by a decode pass and by the prompt's, as a share.
    pub bytes_per_token: f64,
    /// Growth of dispatches per pass, as a share.
    pub dispatches: f64,
}

impl Default for GateOptions {
    fn default() -> Self {
        Self {
            threshold: 0.05,
            significance: 0.05,
            pairs: 10,
            max_pairs: 100,
            ignore: Vec::new(),
            times: TimeThresholds::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            routing_overlap: 1.0,
            balance: 0.01,
            peak_bytes: 0.01,
            bytes_per_token: 0.001,
            dispatches: 0.0,
        }
    }
}

/// A configuration file that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// It can't be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is no TOML, or has a key that is not known.
    #[error("{path}: {reason}", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its line.
        reason: String,
    },
    /// A value is out of range.
    #[error("{path}: gate.{key} is {found}; expected {expected}", path = path.display())]
    Range {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: String,
    },
}

/// The whole file: other tables may come with other commands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    gate: GateOptions,
}

impl GateOptions {
    /// Reads a `moescope.toml`. Unknown keys are errors: a threshold with a typing error would not hold.
    ///
    /// # Errors
    ///
    /// [`OptionsError`].
    pub fn read(path: &Path) -> Result<Self, OptionsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| OptionsError::Read { path: path.to_path_buf(), source })?;
        Self::parse(&text, path)
    }

    /// As [`GateOptions::read`], of a text; `path` names it in errors.
    ///
    /// # Errors
    ///
    /// [`OptionsError`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, OptionsError> {
        let file: File = toml::from_str(text).map_err(|error| OptionsError::Parse {
            path: path.to_path_buf(),
            reason: error.to_string().trim_end().to_owned(),
        })?;
        file.gate.check(path)?;
        Ok(file.gate)
    }

    fn check(&self, path: &Path) -> Result<(), OptionsError> {
        let range = |key, found: String, expected: &str| {
            let path = path.to_path_buf();
            Err(OptionsError::Range { path, key, found, expected: expected.to_owned() })
        };
        let limits = &self.limits;
        let shares = [
            ("threshold", Some(self.threshold)),
            ("times.prefill", self.times.prefill),
            ("times.decode", self.times.decode),
            ("limits.balance", Some(limits.balance)),
            ("limits.peak_bytes", Some(limits.peak_bytes)),
            ("limits.bytes_per_token", Some(limits.bytes_per_token)),
            ("limits.dispatches", Some(limits.dispatches)),
        ];
        for (key, share) in shares {
            if let Some(share) = share.filter(|share| !(share.is_finite() && *share >= 0.0)) {
                return range(
                    key,
                    share.to_string(),
                    "a share of at least 0, such as 0.05 for 5 %",
                );
            }
        }
        if !(0.0..=1.0).contains(&limits.routing_overlap) {
            let found = limits.routing_overlap.to_string();
            return range("limits.routing_overlap", found, "a share from 0 to 1");
        }
        if !(self.significance > 0.0 && self.significance <= 0.5) {
            let found = self.significance.to_string();
            return range("significance", found, "a level above 0 and at most 0.5");
        }
        for (key, pairs) in [("pairs", self.pairs), ("max_pairs", self.max_pairs)] {
            if !(5..=1000).contains(&pairs) {
                return range(key, pairs.to_string(), "a number from 5 to 1000");
            }
        }
        match self.ignore.iter().find(|name| !FACTS.contains(&name.as_str())) {
            Some(name) => range("ignore", format!("{name:?}"), &format!("of {}", FACTS.join(", "))),
            None => Ok(()),
        }
    }

    /// The threshold of a time.
    pub fn threshold_of(&self, time: &str) -> f64 {
        let single = match time {
            "prefill" => self.times.prefill,
            "decode" => self.times.decode,
            _ => None,
        };
        single.unwrap_or(self.threshold)
    }

    /// Whether a fact is checked.
    pub fn checks(&self, fact: &str) -> bool {
        !self.ignore.iter().any(|name| name == fact)
    }
}
