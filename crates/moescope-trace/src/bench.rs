//! A bench result: what `moescope bench` measures once and others read many times.
//!
//! One JSON document, an array of them, or several one after the other (JSON lines are): a file that is
//! appended to. Times are raw samples, always; medians are a reader's business.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::TraceError;
use crate::fingerprint::Fingerprint;

/// The schema this build writes and the only one it reads.
pub const BENCH_SCHEMA_VERSION: u32 = 1;

/// In [`BenchResult::kind`]: tells the file from other JSON.
pub const BENCH_KIND: &str = "moescope-bench";

/// Everything one `bench` measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchResult {
    /// [`BENCH_KIND`].
    pub kind: String,
    /// [`BENCH_SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Unique id.
    pub id: String,
    /// Start, UTC, RFC 3339.
    pub created_at: String,
    /// The command line, one argument per item.
    pub command: Vec<String>,
    /// What it was measured on.
    pub fingerprint: Fingerprint,
    /// What this device reads and computes at most, where measured.
    #[serde(default)]
    pub peaks: Option<Peaks>,
    /// Hash of what the workload gives to read: tokens, and in a replay the experts that are forced. Rows of
    /// one name and other hashes did different work. Unknown in results of versions before it.
    #[serde(default)]
    pub workload_hash: Option<String>,
    /// What counted the joules of its rows; `None` where nothing did, and in results of versions before it.
    #[serde(default)]
    pub energy: Option<EnergyMeter>,
    /// One row per configuration.
    pub rows: Vec<BenchRow>,
}

/// Peaks measured on the device of a bench, for utilisation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peaks {
    /// Bytes read per second.
    pub read_bytes_per_second: f64,
    /// Floating-point operations per second in the weights' type.
    pub flops: f64,
}

/// A counter of energy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnergyMeter {
    /// `nvml` (the board of an NVIDIA GPU), `hwmon` (a counter of the GPU's driver), `hwmon-sampled` (its power,
    /// integrated), `rapl` (all packages of the processor).
    pub source: String,
    /// Time between two steps of the counter, nanoseconds: over less than several it tells nothing.
    pub step_ns: u64,
}

impl EnergyMeter {
    /// Steps after which a difference of two readings is good to a tenth.
    const STEPS: u64 = 10;

    /// Shortest time over which it means something, nanoseconds.
    pub fn shortest_ns(&self) -> u64 {
        Self::STEPS * self.step_ns
    }
}

/// What a row measures.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Configuration {
    /// Where the tokens come from: `text`, `random`, `replay`.
    pub workload: String,
    /// Prompt tokens per sequence; 0 measures generation only.
    pub prompt: u32,
    /// Tokens generated per sequence; 0 measures the prompt only.
    pub generate: u32,
    /// Tokens in the cache before the measurement begins.
    pub depth: u32,
    /// Sequences at once.
    pub batch: u32,
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.workload)?;
        for (letters, value) in [("pp", self.prompt), ("tg", self.generate), ("d", self.depth)] {
            if value > 0 {
                write!(f, " {letters}{value}")?;
            }
        }
        write!(f, " b{}", self.batch)
    }
}

/// One configuration measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchRow {
    /// What was measured.
    pub configuration: Configuration,
    /// Why the row has no samples, or not all of them.
    #[serde(default)]
    pub error: Option<String>,
    /// The first pass of the configuration in its process: shaders are compiled and variants tried here.
    #[serde(default)]
    pub cold: Option<Sample>,
    /// Passes thrown away until times were stable.
    #[serde(default)]
    pub warm_ups: u32,
    /// Samples in the order they were taken, interleaved with those of the other rows.
    pub samples: Vec<Sample>,
    /// What does not depend on time.
    #[serde(default)]
    pub facts: Facts,
    /// Energy of passes one after the other, where samples are too short for the counter.
    #[serde(default)]
    pub energy: Option<Energy>,
}

/// Energy used by passes through a configuration that followed each other without a break.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    /// Joules of all passes.
    pub joules: f64,
    /// Time they took, nanoseconds.
    pub ns: u64,
    /// Their number.
    pub passes: u64,
}

/// One pass through a configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Start, nanoseconds after the start of the bench.
    pub at_ns: u64,
    /// Time of the prompt's forward passes, synchronised; `None` without a prompt.
    #[serde(default)]
    pub prefill_ns: Option<u64>,
    /// Time of each decode pass, synchronised: the gaps between tokens.
    #[serde(default)]
    pub decode_ns: Vec<u64>,
    /// Energy used, joules, where the platform counts it.
    #[serde(default)]
    pub joules: Option<f64>,
    /// Which process took it, counted from 0, where samples are from several.
    #[serde(default, skip_serializing_if = "is_first")]
    pub process: u32,
}

fn is_first(process: &u32) -> bool {
    *process == 0
}

/// What a configuration does, however long it takes: the same for the same program and conditions.
/// `None` where not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Hash of the greedy tokens of all sequences.
    #[serde(default)]
    pub tokens_hash: Option<String>,
    /// Hash of the experts every token selected in every layer.
    #[serde(default)]
    pub routing_hash: Option<String>,
    /// Coefficient of variation of the tokens per expert, mean over layers.
    #[serde(default)]
    pub load_variation: Option<f64>,
    /// Distinct experts a decode pass touches (the prompt's pass where nothing is generated), mean over layers.
    #[serde(default)]
    pub distinct_experts: Option<f64>,
    /// The same under uniform routing: E (1 - (1 - k/E)^T) for the T tokens of such a pass.
    #[serde(default)]
    pub distinct_expected: Option<f64>,
    /// Both of every MoE layer, in order of layers; empty in results of versions before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distinct_by_layer: Vec<LayerExperts>,
    /// Most bytes in use in the device's pools.
    #[serde(default)]
    pub peak_bytes_in_use: Option<u64>,
    /// Most bytes held by the device's pools.
    #[serde(default)]
    pub peak_bytes_reserved: Option<u64>,
    /// Most resident memory of the process. Depends on what ran before; never gated.
    #[serde(default)]
    pub peak_rss_bytes: Option<u64>,
    /// Bytes a decode pass has to read, per token: weights used and cache.
    #[serde(default)]
    pub bytes_per_token: Option<f64>,
    /// Kernels launched per decode pass, or in the prompt's pass where nothing is generated.
    #[serde(default)]
    pub dispatches: Option<f64>,
    /// Other numbers by name, shown and not judged.
    #[serde(default)]
    pub other: BTreeMap<String, f64>,
}

/// Distinct experts that a pass touches in one layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerExperts {
    /// Index of the layer in the model.
    pub layer: u16,
    /// As counted, mean over passes.
    pub measured: f64,
    /// Under uniform routing.
    pub expected: f64,
}

impl Facts {
    /// Takes the higher of each peak of memory: of several measurements of one configuration the most counts,
    /// since whatever ran before may have lowered it in one of them.
    pub fn raise_peaks(&mut self, other: &Self) {
        let peaks = [
            (&mut self.peak_bytes_in_use, other.peak_bytes_in_use),
            (&mut self.peak_bytes_reserved, other.peak_bytes_reserved),
            (&mut self.peak_rss_bytes, other.peak_rss_bytes),
        ];
        for (peak, other) in peaks {
            // No number is less than any.
            *peak = (*peak).max(other);
        }
    }

    /// The first fact that two measurements of one program have differently though it depends on nothing
    /// else, by its name. Peaks of memory may depend on what ran before.
    pub fn disagreement(&self, other: &Self) -> Option<&'static str> {
        let same = [
            ("the greedy tokens", self.tokens_hash == other.tokens_hash),
            ("the routing", self.routing_hash == other.routing_hash),
            ("the balance", self.load_variation == other.load_variation),
            ("the bytes per token", self.bytes_per_token == other.bytes_per_token),
        ];
        same.into_iter().find(|(_, same)| !same).map(|(fact, _)| fact)
    }
}

impl BenchRow {
    /// Nanoseconds per prompt token, one value per sample that has a prompt.
    pub fn prefill_ns_per_token(&self) -> Vec<f64> {
        let tokens = f64::from(self.configuration.prompt) * f64::from(self.configuration.batch);
        let times = self.samples.iter().filter_map(|sample| sample.prefill_ns);
        times.map(|ns| ns as f64 / tokens).collect()
    }

    /// Nanoseconds per generated token, one value per sample that generated some.
    pub fn decode_ns_per_token(&self) -> Vec<f64> {
        let batch = f64::from(self.configuration.batch);
        let samples = self.samples.iter().filter(|sample| !sample.decode_ns.is_empty());
        samples
            .map(|sample| {
                let total: f64 = sample.decode_ns.iter().map(|&ns| ns as f64).sum();
                total / (sample.decode_ns.len() as f64 * batch)
            })
            .collect()
    }

    /// Joules per token (prompt and generated): those of its passes one after the other, or the median of its
    /// samples where each is long enough for the counter. `None` where nothing was counted over long enough.
    pub fn joules_per_token(&self, meter: &EnergyMeter) -> Option<f64> {
        let sequence =
            f64::from(self.configuration.prompt) + f64::from(self.configuration.generate);
        let tokens = sequence * f64::from(self.configuration.batch);
        if let Some(energy) = &self.energy {
            return (energy.passes > 0).then(|| energy.joules / (energy.passes as f64 * tokens));
        }
        let shortest = self.samples.iter().map(Sample::total_ns).min()?;
        let joules: Option<Vec<f64>> = self.samples.iter().map(|sample| sample.joules).collect();
        let mut joules = joules.filter(|_| shortest >= meter.shortest_ns())?;
        joules.sort_unstable_by(f64::total_cmp);
        let middle = (joules[(joules.len() - 1) / 2] + joules[joules.len() / 2]) / 2.0;
        Some(middle / tokens)
    }
}

impl Sample {
    /// All time of it, nanoseconds.
    pub fn total_ns(&self) -> u64 {
        self.prefill_ns.unwrap_or(0) + self.decode_ns.iter().sum::<u64>()
    }
}

impl BenchResult {
    /// Reads all results of a file, in order.
    ///
    /// # Errors
    ///
    /// The file can't be read ([`TraceError::Io`]), is not a bench result or not whole
    /// ([`TraceError::NotABench`]), is of another schema ([`TraceError::UnsupportedSchema`]), or has a
    /// row that can't be used ([`TraceError::BadBench`]): no sample, a time of 0.
    pub fn read(path: &Path) -> Result<Vec<Self>, TraceError> {
        let text = fs::read_to_string(path).map_err(|e| TraceError::io(path, "read", e))?;
        Self::parse(&text, path)
    }

    /// As [`BenchResult::read`], of a text; `path` names it in errors.
    ///
    /// # Errors
    ///
    /// As [`BenchResult::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Vec<Self>, TraceError> {
        let not_a_bench =
            |reason: String| TraceError::NotABench { path: path.to_path_buf(), reason };
        let mut values = Vec::new();
        for value in serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>() {
            match value.map_err(|e| not_a_bench(e.to_string()))? {
                serde_json::Value::Array(several) => values.extend(several),
                one => values.push(one),
            }
        }
        let mut results = Vec::new();
        for value in values {
            if value.get("kind").and_then(|kind| kind.as_str()) != Some(BENCH_KIND) {
                return Err(not_a_bench(format!("`kind` is not {BENCH_KIND:?}")));
            }
            let version = value.get("schema_version").and_then(serde_json::Value::as_u64);
            let version =
                version.ok_or_else(|| not_a_bench("`schema_version` is missing".into()))?;
            if version != u64::from(BENCH_SCHEMA_VERSION) {
                return Err(TraceError::UnsupportedSchema {
                    path: path.to_path_buf(),
                    found: version,
                    supported: BENCH_SCHEMA_VERSION,
                });
            }
            if value.get("fingerprint").is_none_or(serde_json::Value::is_null) {
                return Err(not_a_bench(
                    "it has no `fingerprint`, so nothing says what it was measured on".into(),
                ));
            }
            let result: Self =
                serde_json::from_value(value).map_err(|e| not_a_bench(e.to_string()))?;
            result.check(path)?;
            results.push(result);
        }
        if results.is_empty() {
            return Err(not_a_bench("it is empty".into()));
        }
        Ok(results)
    }

    fn check(&self, path: &Path) -> Result<(), TraceError> {
        let bad = |row: &BenchRow, problem: String| TraceError::BadBench {
            path: path.to_path_buf(),
            row: row.configuration.to_string(),
            problem,
        };
        if self.rows.is_empty() {
            let reason = "it has no rows".into();
            return Err(TraceError::NotABench { path: path.to_path_buf(), reason });
        }
        for row in &self.rows {
            let configuration = &row.configuration;
            if configuration.batch == 0 {
                return Err(bad(row, "a batch of 0 sequences".into()));
            }
            if row.samples.is_empty() && row.error.is_none() {
                return Err(bad(row, "zero samples".into()));
            }
            for (number, sample) in row.samples.iter().enumerate() {
                let prefill = (configuration.prompt > 0).then_some(sample.prefill_ns);
                if prefill.is_some_and(|ns| ns.is_none_or(|ns| ns == 0)) {
                    return Err(bad(row, format!("sample {number} has no prefill time")));
                }
                let decode = &sample.decode_ns;
                if configuration.generate > 0 && (decode.is_empty() || decode.contains(&0)) {
                    return Err(bad(row, format!("sample {number} has no decode time")));
                }
            }
        }
        Ok(())
    }
}
