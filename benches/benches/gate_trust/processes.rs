//! One comparison by the gate as it ships: `gate --run CMD --vs CMD` of a binary, every measurement in a process of
//! its own.

use std::{
    fmt,
    hash::{DefaultHasher, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{Plan, arms::Seen, ledger::Kind, threads};

/// What each process measures, short: many pairs of short processes tell more than few long ones.
const MEASURED: &str =
    "bench datasets/tiny-gemma4-moe --device flex -p 16 -n 3 -r 1 --no-peaks --format json";
/// Routing needs no statistics, so as few pairs as there may be.
const FEW_PAIRS: [&str; 5] = ["--pairs", "5", "--max-pairs", "5", "--no-retry"];

/// The gate of a binary.
pub(crate) struct Processes {
    binary: PathBuf,
    /// Of the binary's bytes: lines of two builds are no row.
    hash: u64,
    slowdown: f64,
    /// Options of the gate; none: its defaults.
    pairs: Vec<String>,
}

impl Processes {
    /// `pairs`: how many a look starts with and at most, where not the gate's defaults.
    pub(crate) fn new(binary: &Path, plan: &Plan, pairs: [Option<u32>; 2]) -> Result<Self, String> {
        let problem = |error: std::io::Error| format!("{}: {error}", binary.display());
        let binary = binary.canonicalize().map_err(problem)?;
        let mut hasher = DefaultHasher::new();
        hasher.write(&std::fs::read(&binary).map_err(problem)?);
        let options = std::iter::zip(["--pairs", "--max-pairs"], pairs)
            .filter_map(|(name, number)| Some([name.to_owned(), number?.to_string()]));
        let pairs = options.flatten().collect();
        Ok(Self { binary, hash: hasher.finish(), slowdown: plan.slowdown, pairs })
    }

    /// Compares the binary with itself or with itself and a fault.
    pub(crate) fn compare(&self, kind: Kind) -> Result<Seen, String> {
        let base = format!("'{}' {MEASURED}", self.binary.display());
        let new = match kind {
            Kind::Same => base.clone(),
            Kind::Slow => format!("{base} --inject-slowdown {}", self.slowdown),
            Kind::Routing => format!("{base} --inject-routing"),
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut gate = Command::new(&self.binary);
        gate.current_dir(root).args(["gate", "--run", &base, "--vs", &new, "--format", "json"]);
        match kind {
            Kind::Routing => gate.args(FEW_PAIRS),
            Kind::Same | Kind::Slow => gate.args(&self.pairs),
        };
        let output = gate.output().map_err(|e| format!("{}: {e}", self.binary.display()))?;
        // 0 passed, 1 regressed: anything else is no verdict, and no line.
        if !matches!(output.status.code(), Some(0 | 1)) {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("gate ended with {}: {}", output.status, said.trim_end()));
        }
        let verdict: Value =
            serde_json::from_slice(&output.stdout).map_err(|e| format!("no verdict: {e}"))?;
        seen(&verdict).ok_or_else(|| format!("not the verdict of this version: {verdict}"))
    }
}

impl fmt::Display for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hash, slowdown, pairs, .. } = self;
        let pairs = match pairs.is_empty() {
            true => "pairs by default".to_owned(),
            false => pairs.join(" "),
        };
        write!(
            f,
            "gate --run, processes of their own: {MEASURED}, {pairs}, {slowdown} % slower, {} threads, binary \
             {hash:016x}",
            threads()
        )
    }
}

/// What the verdict says.
fn seen(verdict: &Value) -> Option<Seen> {
    let checks = verdict["checks"].as_array()?;
    let regressed = |hard: bool| {
        checks.iter().any(|check| check["hard"] == hard && check["outcome"] == "regressed")
    };
    let times = checks.iter().filter(|check| check["hard"] == false).filter_map(|check| {
        let interval = check["interval"].as_array()?;
        let [low, high] = [interval.first()?.as_f64()?, interval.get(1)?.as_f64()?];
        let (metric, ratio) = (check["metric"].as_str()?, check["ratio"].as_f64()?);
        Some(format!("{metric} x{ratio:.3} ({low:.3} to {high:.3})"))
    });
    let pairs = |look: usize| Some(verdict["pairs"][look].as_u64()? as usize);
    Some(Seen {
        slower: regressed(false),
        different: regressed(true),
        pairs: [pairs(0)?, pairs(1)?],
        times: times.collect::<Vec<_>>().join(", "),
    })
}
