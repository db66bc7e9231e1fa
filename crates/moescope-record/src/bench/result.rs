//! Rows as a bench result.

use chrono::{DateTime, SecondsFormat, Utc};
use moescope_trace::{
    BenchResult, Fingerprint,
    bench::{BENCH_KIND, BENCH_SCHEMA_VERSION, BenchRow, EnergyMeter},
};

use super::workload::Workload;

/// When a bench starts.
pub fn now() -> DateTime<Utc> {
    Utc::now()
}

/// A bench result of these rows; peaks of the device may be measured and added later.
pub fn result(
    started: DateTime<Utc>,
    command: Vec<String>,
    fingerprint: Fingerprint,
    energy: Option<EnergyMeter>,
    workload: &Workload,
    rows: Vec<BenchRow>,
) -> BenchResult {
    let seed = format!("{started:?} {} {command:?}", std::process::id());
    BenchResult {
        kind: BENCH_KIND.into(),
        schema_version: BENCH_SCHEMA_VERSION,
        id: blake3::hash(seed.as_bytes()).to_hex()[..16].to_owned(),
        created_at: started.to_rfc3339_opts(SecondsFormat::Secs, true),
        command,
        fingerprint,
        peaks: None,
        workload_hash: Some(workload.hash()),
        energy,
        rows,
    }
}
