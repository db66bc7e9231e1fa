//! Bench results: what is read, and what is refused and how.

use moescope_trace::{
    BenchResult, TraceError,
    bench::{Energy, EnergyMeter},
};
use serde_json::{Value, json};
use std::path::Path;

fn document() -> Value {
    json!({
        "kind": "moescope-bench",
        "schema_version": 1,
        "id": "a",
        "created_at": "2026-07-01T00:00:00Z",
        "command": ["moescope", "bench"],
        "fingerprint": {
            "model": {
                "name": "m", "source": "m", "architecture": "A", "config_hash": "c",
                "weights_hash": "w", "dtype": "f32", "quantisation": null,
                "total_parameters": 1, "active_parameters": 1, "bytes": 4, "weights": "random"
            },
            "moe": {"layers": []},
            "moe_impl": "selected",
            "device": {
                "backend": "flex", "adapter": "cpu", "driver": null, "driver_version": null,
                "vendor_id": null, "device_id": null, "device_type": "cpu"
            },
            "host": {"cpu": "cpu", "cores": 2, "ram_bytes": 1, "os": "os"},
            "moescope_version": "0.1.0",
            "git_commit": null
        },
        "rows": [{
            "configuration": {
                "workload": "text", "prompt": 4, "generate": 2, "depth": 0, "batch": 2
            },
            "samples": [{"at_ns": 0, "prefill_ns": 800, "decode_ns": [100, 300]}]
        }]
    })
}

fn parse(text: &str) -> Result<Vec<BenchResult>, TraceError> {
    BenchResult::parse(text, Path::new("b.json"))
}

#[test]
fn results_are_read_one_after_the_other() {
    let one = document().to_string();
    let results = parse(&format!("{one}\n{one}")).unwrap();
    assert_eq!(results.len(), 2);
    assert_eq!(parse(&format!("[{one}, {one}]\n{one}")).unwrap().len(), 3, "arrays are files too");
    let row = &results[0].rows[0];
    assert_eq!(row.configuration.to_string(), "text pp4 tg2 b2");
    // 800 ns for two sequences of 4 tokens; 400 ns for two passes of two sequences.
    assert_eq!(row.prefill_ns_per_token(), [100.0]);
    assert_eq!(row.decode_ns_per_token(), [100.0]);
    // What is written is read again.
    let text = serde_json::to_string(&results[0]).unwrap();
    assert_eq!(parse(&text).unwrap()[0], results[0]);
}

/// Of samples that are long enough for the counter, or of passes one after the other.
#[test]
fn joules_per_token_need_time() {
    let mut row = parse(&document().to_string()).unwrap().remove(0).rows.remove(0);
    let meter = |step_ns| EnergyMeter { source: "rapl".into(), step_ns };
    assert_eq!(row.joules_per_token(&meter(1)), None, "nothing was counted");
    // 12 tokens in 1200 ns.
    row.samples[0].joules = Some(6.0);
    assert_eq!(row.joules_per_token(&meter(120)), Some(0.5));
    assert_eq!(row.joules_per_token(&meter(121)), None, "less than ten steps");
    let sample = row.samples[0].clone();
    row.samples.push(moescope_trace::bench::Sample { joules: Some(18.0), ..sample });
    assert_eq!(row.joules_per_token(&meter(1)), Some(1.0));
    row.energy = Some(Energy { joules: 24.0, ns: 10_000, passes: 8 });
    assert_eq!(row.joules_per_token(&meter(121)), Some(0.25));
}

#[test]
fn what_is_wrong_is_said() {
    let changed = |change: fn(&mut Value)| {
        let mut document = document();
        change(&mut document);
        parse(&document.to_string()).unwrap_err().to_string()
    };
    let cases: [(String, &[&str]); 10] = [
        (parse("").unwrap_err().to_string(), &["b.json", "empty"]),
        (parse("{").unwrap_err().to_string(), &["b.json", "not a bench result", "EOF"]),
        (parse("[1]").unwrap_err().to_string(), &["`kind`"]),
        (
            parse(&document().to_string().replace("800", "NaN")).unwrap_err().to_string(),
            &["not a bench result", "line 1"],
        ),
        (changed(|d| d["schema_version"] = json!(2)), &["schema version 2", "reads version 1"]),
        (changed(|d| d["fingerprint"] = Value::Null), &["no `fingerprint`"]),
        (changed(|d| d["rows"] = json!([])), &["no rows"]),
        (changed(|d| d["rows"][0]["samples"] = json!([])), &["text pp4 tg2 b2", "zero samples"]),
        (
            changed(|d| d["rows"][0]["samples"][0]["decode_ns"] = json!([5, 0])),
            &["sample 0", "decode time"],
        ),
        (changed(|d| d["rows"][0]["samples"][0]["prefill_ns"] = Value::Null), &["prefill time"]),
    ];
    for (error, parts) in cases {
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    // A row that failed may have no samples.
    let mut failed = document();
    failed["rows"][0]["samples"] = json!([]);
    failed["rows"][0]["error"] = json!("out of memory");
    assert!(parse(&failed.to_string()).is_ok());
}
