//! Rows as a bench result.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use moescope_trace::{
    BenchResult, Fingerprint,
    bench::{BENCH_KIND, BENCH_SCHEMA_VERSION, BenchRow, EnergyMeter, Sample},
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

/// One result of several, each measured by a process that began so long after the first: the same configurations,
/// `samples` in all. `None` of none.
///
/// What differs between processes is kept from the first, but the highest peaks of memory count, and kernel
/// variants and peaks of the device come from wherever they are known.
pub fn merged(parts: Vec<(Duration, BenchResult)>, samples: u32) -> Option<BenchResult> {
    let mut parts = parts.into_iter();
    let (_, mut all) = parts.next()?;
    for (process, (at, part)) in (1..).zip(parts) {
        all.peaks = all.peaks.or(part.peaks);
        let decisions = &mut all.fingerprint.autotune.decisions;
        decisions.extend(part.fingerprint.autotune.decisions);
        decisions.sort();
        decisions.dedup();
        for (row, more) in all.rows.iter_mut().zip(part.rows) {
            row.facts.raise_peaks(&more.facts);
            row.error = row.error.take().or(more.error);
            row.energy = row.energy.or(more.energy);
            row.warm_ups += more.warm_ups;
            let later = |sample: Sample| {
                let at_ns = sample.at_ns + at.as_nanos() as u64;
                Sample { at_ns, process, ..sample }
            };
            row.samples.extend(more.samples.into_iter().map(later));
        }
    }
    for row in &mut all.rows {
        let taken = row.samples.len();
        if taken < samples as usize {
            // A process counts its own samples.
            let reason = row.error.as_deref().and_then(|error| error.rsplit_once(" ("));
            let reason = reason.map_or("interrupted", |(reason, _)| reason);
            row.error = Some(format!("{reason} ({taken} of {samples} samples)"));
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn part(decode_ns: &[u64], error: Option<&str>) -> BenchResult {
        let text = include_str!("../../../moescope/tests/data/bench.json");
        let mut result: BenchResult = serde_json::from_str(text).unwrap();
        let samples: Vec<_> =
            (1..).zip(decode_ns).map(|(at, ns)| json!({"at_ns": at, "decode_ns": [ns]})).collect();
        let row = json!({
            "configuration": {"workload": "text", "prompt": 0, "generate": 1, "depth": 0, "batch": 1},
            "samples": samples, "error": error, "warm_ups": 2,
            "facts": {"peak_bytes_in_use": decode_ns.first()},
        });
        result.rows = vec![serde_json::from_value(row).unwrap()];
        result.fingerprint.autotune.decisions = decode_ns.iter().map(u64::to_string).collect();
        result
    }

    #[test]
    fn processes_become_one_result() {
        assert_eq!(merged(Vec::new(), 4), None);
        let at = Duration::from_nanos;
        let all = merged(vec![(at(0), part(&[7, 5], None)), (at(50), part(&[9, 5], None))], 4);
        let all = all.unwrap();
        let row = &all.rows[0];
        let samples = row.samples.iter().map(|s| (s.process, s.at_ns, s.decode_ns[0]));
        assert_eq!(samples.collect::<Vec<_>>(), [(0, 1, 7), (0, 2, 5), (1, 51, 9), (1, 52, 5)]);
        assert_eq!((&row.error, row.warm_ups, row.facts.peak_bytes_in_use), (&None, 4, Some(9)));
        assert_eq!(all.fingerprint.autotune.decisions, ["5", "7", "9"]);
        // Interrupted in the second, or between the two.
        let broken = part(&[9], Some("interrupted (1 of 2 samples)"));
        let all = merged(vec![(at(0), part(&[7, 5], None)), (at(50), broken)], 4).unwrap();
        assert_eq!(all.rows[0].error.as_deref(), Some("interrupted (3 of 4 samples)"));
        let all = merged(vec![(at(0), part(&[7, 5], None))], 4).unwrap();
        assert_eq!(all.rows[0].error.as_deref(), Some("interrupted (2 of 4 samples)"));
    }
}
