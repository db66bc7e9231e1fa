//! What a measurement says, whatever it is: a bench result or a run.

use std::collections::BTreeMap;
use std::fmt;

use moescope_trace::bench::{BenchResult, Facts};
use moescope_trace::manifest::Manifest;
use moescope_trace::{Fingerprint, Phase, Run};

use super::GateError;
use super::comparable::one_build;
use crate::chance::Balance;
use crate::data::{NO_EXPERT, RunData};
use crate::error::AnalysisError;

/// Names of the times, in nanoseconds per token.
pub const TIMES: [&str; 2] = ["prefill", "decode"];

/// A measurement as the gate sees it.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Name in messages: its path.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// What it was measured on.
    pub fingerprint: Fingerprint,
    /// What a run was asked to do: prompts and settings that change what it computes.
    pub task: Option<String>,
    /// What was measured.
    pub rows: Vec<Row>,
    /// What a reader should know of it.
    pub notes: Vec<String>,
    /// The run itself, for the overlap of routing.
    pub(super) run: Option<std::sync::Arc<RunData>>,
}

/// Where a measurement comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `moescope bench`.
    Bench,
    /// `moescope run`.
    Run,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Bench => "bench result",
            Kind::Run => "run",
        })
    }
}

/// One configuration, or a whole run.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name: `text pp128 tg64 b1`, `all prompts`.
    pub name: String,
    /// Hash of what it read, where a bench says so.
    pub workload: Option<String>,
    /// Why it has no or not all samples.
    pub error: Option<String>,
    /// What does not depend on time.
    pub facts: Facts,
    /// Times, of [`TIMES`], those that were taken.
    pub times: Vec<Timed>,
    /// Joules per token, one value per sample that has them. Not judged.
    pub joules: Vec<f64>,
}

/// Samples of one time.
#[derive(Clone, Debug)]
pub struct Timed {
    /// Its name, of [`TIMES`].
    pub name: &'static str,
    /// Nanoseconds per token in the order they were taken; each with what it is about where samples of
    /// two measurements belong together (the sequence of a run).
    pub samples: Vec<(Option<u32>, f64)>,
}

/// The prompts of a run and the settings that decide which tokens it computes.
fn task_of(manifest: &Manifest) -> String {
    let settings = &manifest.settings;
    let sampling = &settings.sampling;
    let choice = match sampling.temperature == 0.0 {
        true => "greedy".to_owned(),
        false => format!(
            "temperature {}, top_k {}, top_p {}, seed {}",
            sampling.temperature, sampling.top_k, sampling.top_p, settings.seed
        ),
    };
    format!(
        "prompts {}, batch {}, at most {} generated tokens, {choice}",
        manifest.prompts_hash, settings.batch, settings.max_tokens
    )
}

impl Evidence {
    /// A row by its name.
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// Evidence of the results of one file: results of one build and equal conditions are put together, row by
    /// row.
    ///
    /// # Errors
    ///
    /// [`GateError::OneSide`] where a file holds results of different builds or conditions,
    /// [`GateError::Empty`] where no row has a sample.
    pub fn of_bench(name: &str, results: &[BenchResult]) -> Result<Self, GateError> {
        let Some(first) = results.first() else {
            return Err(GateError::Empty { name: name.to_owned() });
        };
        let mut evidence = Self {
            name: name.to_owned(),
            kind: Kind::Bench,
            fingerprint: first.fingerprint.clone(),
            task: None,
            rows: Vec::new(),
            notes: Vec::new(),
            run: None,
        };
        let mut states: BTreeMap<&str, String> = BTreeMap::new();
        let mut at_of: BTreeMap<String, usize> = BTreeMap::new();
        for result in results {
            let of_first = format!("the first result of {name}");
            one_build((&of_first, &first.fingerprint), ("a later one", &result.fingerprint))?;
            for difference in first.fingerprint.differences(&result.fingerprint) {
                states.entry(difference.field).or_insert_with(|| difference.to_string());
            }
            for row in &result.rows {
                let key = row.configuration.to_string();
                let at = *at_of.entry(key.clone()).or_insert_with(|| {
                    evidence.rows.push(Row {
                        name: key,
                        workload: result.workload_hash.clone(),
                        error: None,
                        facts: row.facts.clone(),
                        times: Vec::new(),
                        joules: Vec::new(),
                    });
                    evidence.rows.len() - 1
                });
                let to = &mut evidence.rows[at];
                if to.workload != result.workload_hash {
                    let (base, new) = (of_first, "a later one".into());
                    return Err(GateError::Workload { base, new, row: to.name.clone() });
                }
                to.facts.raise_peaks(&row.facts);
                to.error = to.error.take().or_else(|| row.error.clone());
                if let Some(fact) = to.facts.disagreement(&row.facts) {
                    let problem =
                        || format!("its results disagree in {fact}, which no time changes");
                    to.error.get_or_insert_with(problem);
                }
                let times = [row.prefill_ns_per_token(), row.decode_ns_per_token()];
                for (name, values) in std::iter::zip(TIMES, times) {
                    to.push(name, values.into_iter().map(|ns| (None, ns)));
                }
                let meter = result.energy.as_ref();
                to.joules.extend(meter.and_then(|meter| row.joules_per_token(meter)));
            }
        }
        if !states.is_empty() {
            let states: Vec<String> = states.into_values().collect();
            evidence.notes.push(format!(
                "{name}: its {} results were measured in different states of the machine: {}",
                results.len(),
                states.join(", ")
            ));
        }
        evidence.check()?;
        Ok(evidence)
    }

    /// Evidence of a run: one row over all its prompts, times by sequence.
    ///
    /// # Errors
    ///
    /// The run can't be read, or is empty.
    pub fn of_run(name: &str, run: &Run) -> Result<Self, EvidenceError> {
        let data = RunData::load(run)?;
        let mut row = Row {
            name: "all prompts".into(),
            workload: None,
            error: data.partial.then(|| "the run is partial".into()),
            facts: facts_of(&data),
            times: Vec::new(),
            joules: Vec::new(),
        };
        if data.has(crate::metric::Need::Times) {
            for (name, phase) in std::iter::zip(TIMES, [Phase::Prefill, Phase::Decode]) {
                row.push(name, times_of(&data, phase));
            }
        }
        let evidence = Self {
            name: name.to_owned(),
            kind: Kind::Run,
            fingerprint: Fingerprint::of_run(&data.manifest),
            task: Some(task_of(&data.manifest)),
            rows: vec![row],
            notes: Vec::new(),
            run: Some(data.into()),
        };
        evidence.check()?;
        Ok(evidence)
    }

    /// Samples are positive numbers, and there is something at all.
    fn check(&self) -> Result<(), GateError> {
        let times =
            || self.rows.iter().flat_map(|row| row.times.iter().map(move |time| (row, time)));
        for (row, time) in times() {
            let bad = |ns: &f64| !(ns.is_finite() && *ns > 0.0);
            if let Some(&found) = time.samples.iter().map(|(_, ns)| ns).find(|ns| bad(ns)) {
                let (name, row) = (self.name.clone(), row.name.clone());
                return Err(GateError::BadTime { name, row, time: time.name, found });
            }
        }
        if self.kind == Kind::Bench && times().next().is_none() {
            return Err(GateError::Empty { name: self.name.clone() });
        }
        Ok(())
    }
}

/// A run that can't be evidence.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// It can't be read.
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    /// It says nothing.
    #[error(transparent)]
    Gate(#[from] GateError),
}

impl Row {
    fn push(&mut self, name: &'static str, samples: impl IntoIterator<Item = (Option<u32>, f64)>) {
        let mut samples: Vec<_> = samples.into_iter().collect();
        match self.times.iter_mut().find(|time| time.name == name) {
            Some(time) => time.samples.append(&mut samples),
            None if samples.is_empty() => {}
            None => self.times.push(Timed { name, samples }),
        }
    }

    /// The samples of a time.
    pub fn time(&self, name: &str) -> Option<&Timed> {
        self.times.iter().find(|time| time.name == name)
    }
}

/// Nanoseconds per token of each sequence in a phase. A pass over several sequences counts for each by
/// its share of the tokens.
fn times_of(data: &RunData, phase: Phase) -> Vec<(Option<u32>, f64)> {
    let steps = &data.steps;
    let place: BTreeMap<u32, usize> = steps.step.iter().copied().zip(0..).collect();
    let mut sums = Vec::new();
    for sequence in &data.sequences {
        let (mut ns, mut tokens) = (0.0, 0u32);
        for at in sequence.start..sequence.end {
            let Some(&step) = place.get(&data.tokens.step[at]) else { continue };
            if data.tokens.phase[at] == phase && steps.tokens[step] > 0 {
                ns += steps.duration_ns[step] as f64 / f64::from(steps.tokens[step]);
                tokens += 1;
            }
        }
        if tokens > 0 {
            sums.push((Some(sequence.id), ns / f64::from(tokens)));
        }
    }
    sums
}

fn facts_of(data: &RunData) -> Facts {
    let mut tokens = Hash::new();
    let decoded =
        data.tokens.phase.iter().zip(&data.tokens.token_id).filter(|(p, _)| **p == Phase::Decode);
    let mut generated = 0;
    for (_, id) in decoded {
        tokens.add(u64::from(*id));
        generated += 1;
    }
    let mut routing = Hash::new();
    let mut variations = Vec::new();
    for layer in &data.layers {
        let mut counts = vec![0.0; layer.experts];
        for &id in &layer.ids {
            routing.add(u64::from(id));
            if id != NO_EXPERT {
                counts[usize::from(id)] += 1.0;
            }
        }
        variations.extend(Balance::of(&mut counts).map(|balance| balance.variation));
    }
    let greedy = data.manifest.settings.sampling.temperature == 0.0;
    Facts {
        tokens_hash: (greedy && generated > 0).then(|| tokens.text()),
        routing_hash: (!data.layers.is_empty()).then(|| routing.text()),
        load_variation: (!variations.is_empty())
            .then(|| variations.iter().sum::<f64>() / variations.len() as f64),
        peak_bytes_in_use: data.steps.bytes_in_use.iter().copied().flatten().max(),
        peak_bytes_reserved: data.steps.bytes_reserved.iter().copied().flatten().max(),
        peak_rss_bytes: data.steps.rss_bytes.iter().copied().flatten().max(),
        ..Facts::default()
    }
}

/// FNV-1a over numbers: to see whether two lists are equal, not to withstand an attack.
struct Hash(u64);

impl Hash {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn text(&self) -> String {
        format!("{:016x}", self.0)
    }
}
