//! The numbers of a row: medians of its samples, with intervals.

use moescope_analysis::stats;
use moescope_trace::bench::{BenchRow, Configuration, Sample};

use super::Printed;

/// A row in numbers; `None` where there is nothing to compute one from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Summary {
    /// Tokens per second (prompt and generated ones together), median of the samples.
    pub(super) rate: Option<f64>,
    /// 95 % bootstrap interval of the median; over processes where samples are from several.
    pub(super) interval: Option<(f64, f64)>,
    /// Distance of the quartiles over the median.
    pub(super) spread: Option<f64>,
    /// Time to first token: the prompt's pass, median, ns.
    pub(super) ttft_ns: Option<f64>,
    /// Time per output token, median over samples, ns.
    pub(super) tpot_ns: Option<f64>,
    /// Gaps between tokens over all samples: 50th, 95th and 99th percentile, ns.
    pub(super) itl_ns: Option<[f64; 3]>,
    /// First token of the very first pass, ns.
    pub(super) cold_ns: Option<f64>,
    /// Bytes that had to be read per second over the measured peak.
    pub(super) mbu: Option<f64>,
    /// Operations per second over the measured peak.
    pub(super) mfu: Option<f64>,
    /// Joules per token.
    pub(super) joules: Option<f64>,
}

impl Summary {
    pub(super) fn of(row: &BenchRow, printed: &Printed<'_>) -> Self {
        let configuration = &row.configuration;
        let batch = f64::from(configuration.batch);
        let tokens = batch * (f64::from(configuration.prompt) + f64::from(configuration.generate));
        let of = |sample: &Sample| tokens * 1e9 / sample.total_ns() as f64;
        let rates: Vec<f64> = row.samples.iter().map(of).collect();
        // Samples of one process resemble each other: each process counts once.
        let mut units = rates.clone();
        if row.samples.iter().any(|sample| sample.process > 0) {
            let one =
                |samples: &[Sample]| stats::median(&mut samples.iter().map(of).collect::<Vec<_>>());
            let processes = row.samples.chunk_by(|a, b| a.process == b.process);
            units = processes.filter_map(one).collect();
        }
        let rate = stats::median(&mut units.clone());
        let prefill = row.samples.iter().filter_map(|sample| sample.prefill_ns);
        let ttft_ns = stats::median(&mut prefill.map(|ns| ns as f64).collect::<Vec<_>>());
        let per_token = row.decode_ns_per_token();
        let tpot_ns = stats::median(&mut per_token.iter().map(|ns| ns * batch).collect::<Vec<_>>());
        let cold_ns = row.cold.as_ref().and_then(|cold| {
            let first = cold.prefill_ns.or_else(|| cold.decode_ns.first().copied());
            first.map(|ns| ns as f64)
        });
        let joules = printed.result.energy.as_ref().and_then(|meter| row.joules_per_token(meter));
        let (bytes, operations, seconds) = work(row, ttft_ns, tpot_ns);
        let peaks = printed.result.peaks.as_ref();
        let share = |amount: Option<f64>, peak: Option<f64>| Some(amount? / seconds? / peak?);
        Summary {
            interval: stats::median_interval(&units),
            spread: stats::quartile_spread(&rates),
            itl_ns: gaps(&row.samples),
            mbu: share(bytes, peaks.map(|p| p.read_bytes_per_second)),
            mfu: share(operations, peaks.map(|p| p.flops)),
            joules,
            rate,
            ttft_ns,
            tpot_ns,
            cold_ns,
        }
    }
}

/// Bytes and operations one decode pass needs and its time, or those of the prompt's pass where nothing is
/// generated.
fn work(
    row: &BenchRow,
    ttft_ns: Option<f64>,
    tpot_ns: Option<f64>,
) -> (Option<f64>, Option<f64>, Option<f64>) {
    let configuration = &row.configuration;
    let other = |name: &str| row.facts.other.get(name).copied();
    let batch = f64::from(configuration.batch);
    let (bytes, operations, tokens, ns) = match configuration.generate {
        0 => (
            other("prefill_bytes_per_token"),
            other("prefill_flops_per_token"),
            batch * f64::from(configuration.prompt),
            ttft_ns,
        ),
        _ => (row.facts.bytes_per_token, other("decode_flops_per_token"), batch, tpot_ns),
    };
    (bytes.map(|b| b * tokens), operations.map(|o| o * tokens), ns.map(|ns| ns / 1e9))
}

fn gaps(samples: &[Sample]) -> Option<[f64; 3]> {
    let all = samples.iter().flat_map(|sample| &sample.decode_ns).map(|&ns| ns as f64);
    let all = sorted(all.collect());
    (!all.is_empty()).then(|| [0.5, 0.95, 0.99].map(|share| stats::quantile(&all, share)))
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// The row's name as llama-bench has it: `pp512`, `tg128 @ d4096`; with the batch where there is one.
pub(super) fn test(configuration: &Configuration) -> String {
    let Configuration { prompt, generate, depth, batch, .. } = configuration;
    let mut text = match (prompt, generate) {
        (_, 0) => format!("pp{prompt}"),
        (0, _) => format!("tg{generate}"),
        _ => format!("pp{prompt}+tg{generate}"),
    };
    if *depth > 0 {
        text.push_str(&format!(" @ d{depth}"));
    }
    if *batch > 1 {
        text.push_str(&format!(" b{batch}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use moescope_trace::{
        BenchResult,
        bench::{Energy, EnergyMeter, Peaks},
    };
    use serde_json::json;

    use super::*;

    fn row(prompt: u32, generate: u32, samples: serde_json::Value) -> BenchRow {
        serde_json::from_value(json!({
            "configuration": {
                "workload": "text", "prompt": prompt, "generate": generate, "depth": 0, "batch": 2
            },
            "cold": {"at_ns": 0, "prefill_ns": 7e6 as u64, "decode_ns": [9]},
            "samples": samples,
            "facts": {
                "bytes_per_token": 500.0,
                "other": {
                    "decode_flops_per_token": 100.0,
                    "prefill_flops_per_token": 200.0, "prefill_bytes_per_token": 10.0
                }
            },
        }))
        .unwrap()
    }

    fn result() -> BenchResult {
        let text = include_str!("../../../tests/data/bench.json");
        let mut result =
            BenchResult::parse(text, std::path::Path::new("bench.json")).unwrap().remove(0);
        result.peaks = Some(Peaks { read_bytes_per_second: 1e6, flops: 1e6 });
        result
    }

    #[test]
    fn numbers_by_hand() {
        let mut result = result();
        result.energy = Some(EnergyMeter { source: "rapl".into(), step_ns: 400_000 });
        let printed = Printed { result: &result, labels: &[] };
        // Decode passes of 1, 2 and 3 ms; 2 sequences.
        let ms = |n: u64| n * 1_000_000;
        let samples = json!([
            {"at_ns": 0, "decode_ns": [ms(1), ms(3)], "joules": 8.0},
            {"at_ns": 0, "decode_ns": [ms(2), ms(2)], "joules": 4.0},
            {"at_ns": 0, "decode_ns": [ms(3), ms(3)], "joules": 12.0},
        ]);
        let found = Summary::of(&row(0, 2, samples.clone()), &printed);
        // 4 tokens in 4, 4 and 6 ms.
        assert_eq!(found.rate, Some(1000.0));
        assert_eq!(found.interval, None);
        assert_eq!((found.ttft_ns, found.tpot_ns), (None, Some(2e6)));
        assert_eq!(found.itl_ns.unwrap()[0], 2.5e6);
        assert_eq!(found.cold_ns, Some(7e6));
        assert_eq!(found.joules, Some(2.0));
        // 1000 bytes and 200 operations in 2 ms.
        assert!(
            (found.mbu.unwrap() - 0.5).abs() < 1e-12 && (found.mfu.unwrap() - 0.1).abs() < 1e-12
        );
        // Shorter than ten steps of a counter, samples tell nothing; 5 passes one after the other do.
        let mut slow = result.clone();
        slow.energy = Some(EnergyMeter { source: "nvml".into(), step_ns: 500_000 });
        let slow = Printed { result: &slow, labels: &[] };
        let mut row_of_short = row(0, 2, samples);
        assert_eq!(Summary::of(&row_of_short, &slow).joules, None);
        row_of_short.energy = Some(Energy { joules: 60.0, ns: ms(20), passes: 5 });
        assert_eq!(Summary::of(&row_of_short, &slow).joules, Some(3.0));

        let samples: Vec<_> =
            [5, 4, 6, 5, 5].iter().map(|n| json!({"at_ns": 0, "prefill_ns": ms(*n)})).collect();
        let found = Summary::of(&row(10, 0, json!(samples)), &printed);
        assert_eq!((found.rate, found.ttft_ns, found.tpot_ns), (Some(4000.0), Some(5e6), None));
        let (low, high) = found.interval.unwrap();
        assert!(low < 4000.0 && high > 4000.0 && low > 2500.0 && high < 6000.0, "{low} {high}");
        assert_eq!(found.spread, Some(0.0));
        // 200 bytes and 4000 operations in 5 ms.
        assert!(
            (found.mbu.unwrap() - 0.04).abs() < 1e-12 && (found.mfu.unwrap() - 0.8).abs() < 1e-12
        );
        assert_eq!(Summary::of(&row(10, 0, json!([])), &printed).rate, None);
    }

    /// Five processes with samples that are alike: what they differ by is what the interval is made of.
    #[test]
    fn processes_count_once_each() {
        let result = result();
        let printed = Printed { result: &result, labels: &[] };
        let samples = |process: u64| {
            let ns = [100, 102, 104, 106, 108][process as usize] * 10_000;
            vec![json!({"at_ns": 0, "prefill_ns": ns, "process": process}); 1 + process as usize]
        };
        let samples: Vec<_> = (0..5).flat_map(samples).collect();
        let found = Summary::of(&row(52, 0, json!(samples)), &printed);
        // 104 tokens in 1.04 ms, the middle one of five; of all samples it would be 1.06 ms.
        assert_eq!(found.rate, Some(100_000.0));
        let rates = [1.00, 1.02, 1.04, 1.06, 1.08].map(|ms| 104e3 / ms);
        let want = stats::median_interval(&rates).unwrap();
        let (low, high) = found.interval.unwrap();
        assert!((low / want.0 - 1.0).abs() < 1e-9 && (high / want.1 - 1.0).abs() < 1e-9);
    }

    #[test]
    fn tests_are_named_as_the_field_does() {
        let name = |prompt, generate, depth, batch| {
            test(&Configuration { workload: "text".into(), prompt, generate, depth, batch })
        };
        assert_eq!(name(512, 0, 0, 1), "pp512");
        assert_eq!(name(0, 128, 4096, 1), "tg128 @ d4096");
        assert_eq!(name(512, 128, 0, 4), "pp512+tg128 b4");
    }
}
