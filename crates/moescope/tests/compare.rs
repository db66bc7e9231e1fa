//! `compare` on runs of the bundled checkpoints.

use std::path::Path;

use serde_json::{Value, json};

use crate::common::{datasets, moescope, prompts, stderr, stdout, succeed};

fn record(model: &str, prompts: &Path, run: &Path, options: &[&str]) {
    let mut command = moescope();
    command.arg("run").arg(datasets().join(model)).arg("--prompts").arg(prompts);
    succeed(command.arg("-o").arg(run).args(["--device", "flex"]).args(options));
}

fn texts(texts: &[&str]) -> Vec<Value> {
    let record =
        |(n, text): (usize, &&str)| json!({"id": format!("{n}"), "domain": "x", "text": text});
    texts.iter().enumerate().map(record).collect()
}

const TEXTS: [&str; 6] = [
    "One river runs to the sea.",
    "Two rivers meet under the old bridge.",
    "fn main() { println!(\"three\"); }",
    "Four winds blow over the northern hills.",
    "Five times five is twenty-five.",
    "Six days of rain and then the sun.",
];

fn document(base: &Path, new: &Path, options: &[&str]) -> Value {
    let mut command = moescope();
    command.arg("compare").arg(base).arg(new).args(["--format", "json"]).args(options);
    serde_json::from_str(&stdout(&succeed(&mut command))).unwrap()
}

fn value(document: &Value, metric: &str) -> f64 {
    let rows = document["rows"].as_array().unwrap();
    let found = rows.iter().find(|row| row["metric"] == metric && row["layer"].is_null());
    found.unwrap_or_else(|| panic!("no {metric}"))["value"].as_f64().unwrap()
}

#[test]
fn checkpoints_dtypes_and_prompts() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let six = prompts(dir.path(), &texts(&TEXTS));
    let options = ["--max-tokens", "8"];
    record("tiny-gemma4-moe", &six, &path("final"), &options);
    record("tiny-gemma4-moe", &six, &path("again"), &options);
    record("tiny-gemma4-moe-early", &six, &path("early"), &options);
    record("tiny-gemma4-moe", &six, &path("bf16"), &["--max-tokens", "8", "--dtype", "bf16"]);

    // A run equals itself recorded again.
    let same = document(&path("final"), &path("again"), &[]);
    for (metric, expected) in [
        ("routing_overlap", 1.0),
        ("same_experts", 1.0),
        ("top1_flips", 0.0),
        ("distribution_shift", 0.0),
        ("equal_tokens", 1.0),
        ("logprob_difference", 0.0),
    ] {
        assert_eq!(value(&same, metric), expected, "{metric}");
    }
    assert!(value(&same, "speed_ratio") > 0.0);
    // bf16 moves it little if at all, another checkpoint a lot.
    let bf16 = document(&path("final"), &path("bf16"), &[]);
    let early = document(&path("early"), &path("final"), &[]);
    let overlap = |document| value(document, "routing_overlap");
    assert!(overlap(&bf16) > 0.9, "{}", overlap(&bf16));
    assert!(overlap(&early) < overlap(&bf16) && overlap(&early) > 4.0 / 32.0);
    assert!(value(&early, "logprob_change") > 0.0, "training goes on to say the text better");
    assert!(value(&bf16, "logprob_difference") < value(&early, "logprob_difference"));

    let mut command = moescope();
    command.arg("compare").arg(path("early")).arg(path("final"));
    let text = stdout(&succeed(&mut command));
    for part in [
        "base: tiny-gemma4-moe",
        "tokens that both read",
        "all layers",
        "12.5 %",
        "tokens/s, decode",
        "time to first token, ms",
        "time per output token, ms",
        "gap between tokens, ms",
        "process memory",
        "not compared: memory: not recorded: device memory in use",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    let markdown = stdout(&succeed(command.args(["--format", "md"])));
    assert!(markdown.contains("|  | same experts |"), "{markdown}");
    // By phase and by domain; there is one domain alone.
    let mut command = moescope();
    command.arg("compare").arg(path("early")).arg(path("final"));
    let output = succeed(command.args(["--by", "phase"]));
    let (text, notes) = (stdout(&output), stderr(&output));
    let line = |first: &str| text.lines().any(|line| line.starts_with(first));
    assert!(line("prefill ") && line("decode ") && !line("all layers"), "{text}");
    assert!(
        notes.contains("no rows by phase: utilisation_difference, distribution_shift"),
        "{notes}"
    );
    let mut command = moescope();
    command.arg("compare").arg(path("early")).arg(path("final"));
    let output = succeed(command.args(["--by", "domain", "--format", "csv"]));
    assert_eq!(stdout(&output).lines().count(), 1, "{}", stdout(&output));
    assert!(stderr(&output).contains("no rows by domain: "), "{}", stderr(&output));
    let listed = stdout(&succeed(moescope().args(["compare", "--list"])));
    for metric in moescope_analysis::COMPARISON_METRICS {
        assert!(listed.contains(&format!("{} ({}): ", metric.name, metric.unit)), "{listed}");
    }
    let json = stdout(&succeed(moescope().args(["compare", "--list", "--format", "json"])));
    assert_eq!(
        serde_json::from_str::<Vec<Value>>(&json).unwrap().len(),
        moescope_analysis::COMPARISON_METRICS.len()
    );
    let mut command = moescope();
    command.arg("compare").arg(path("early")).arg(path("final")).args(["--format", "csv"]);
    let csv = stdout(&succeed(&mut command));
    let header = "base,new,metric,layer,index,index_kind,index_first,index_second,domain,phase,value,low,high,\
                  chance,unit";
    assert_eq!(csv.lines().next(), Some(header));
    assert!(csv.lines().nth(1).unwrap().contains("tiny-gemma4-moe"), "{csv}");
    let count = |part: &str| csv.lines().filter(|line| line.contains(part)).count();
    assert_eq!(count(",utilisation_difference,"), 6 * 32);
    // All, prefill and decode, six layers and their mean.
    assert_eq!(count(",routing_overlap,"), 3 * 7);
    // What a ratio is between: of the base, then of the new run.
    let of_base = |line: &&str| line.contains(",,peak_rss_bytes,");
    assert!(csv.lines().any(|line| of_base(&line)), "{csv}");
    assert!(csv.lines().any(|line| line.starts_with(',') && line.contains(",peak_rss_bytes,")));
    // JSON has the same names.
    let mut names: Vec<&str> = header.split(',').collect();
    names.sort_unstable();
    let rows = early["rows"].as_array().unwrap();
    assert_eq!(rows.len(), csv.lines().count() - 1);
    for row in rows {
        let mut keys: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, names);
    }

    // The same rows as Parquet.
    let file = path("comparison.parquet");
    let mut command = moescope();
    command.arg("compare").arg(path("early")).arg(path("final"));
    succeed(command.args(["--format", "parquet", "-o"]).arg(&file));
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"), "{} bytes", bytes.len());
    let text = path("comparison.txt");
    let mut command = moescope();
    command.arg("compare").arg(path("early")).arg(path("final"));
    assert!(stdout(&succeed(command.arg("-o").arg(&text))).is_empty());
    assert!(std::fs::read_to_string(&text).unwrap().contains("same experts"));

    // Other prompts: no tokens to compare, and the first that differs is named.
    let mut others = TEXTS;
    others[2] = "fn main() { println!(\"other\"); }";
    let others = texts(&others);
    let subdir = path("others");
    std::fs::create_dir(&subdir).unwrap();
    record("tiny-gemma4-moe", &prompts(&subdir, &others), &path("prompts"), &options);
    let text = stdout(&succeed(moescope().arg("compare").arg(path("final")).arg(path("prompts"))));
    assert!(
        text.contains("not compared token by token: the prompt sets differ, first in sequence 2"),
        "{text}"
    );
    assert!(text.contains("shift") && text.contains("tokens/s, prefill"), "{text}");
    let document = document(&path("final"), &path("prompts"), &[]);
    assert_eq!(document["token_wise"]["compared"], false);
    assert!(value(&document, "distribution_shift") > 0.0);
}

#[test]
fn other_machines_need_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let six = prompts(dir.path(), &texts(&TEXTS));
    record("tiny-gemma4-moe", &six, &path("a"), &["--max-tokens", "4"]);
    record("tiny-gemma4-moe", &six, &path("b"), &["--max-tokens", "4"]);
    let manifest = path("b").join("manifest.json");
    let mut other: Value =
        serde_json::from_str(&std::fs::read_to_string(&manifest).unwrap()).unwrap();
    other["device"]["driver_version"] = json!("99.1");
    std::fs::write(&manifest, other.to_string()).unwrap();
    let compare = |options: &[&str]| {
        stdout(&succeed(moescope().arg("compare").arg(path("a")).arg(path("b")).args(options)))
    };
    let text = compare(&[]);
    assert!(text.contains("different drivers") && text.contains("--across-devices"), "{text}");
    assert!(!text.contains("tokens/s, decode"), "{text}");
    assert!(compare(&["--across-devices"]).contains("tokens/s, decode"));
}
