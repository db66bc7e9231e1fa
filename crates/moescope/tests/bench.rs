//! `bench` as a user runs it.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
};

use moescope_trace::BenchResult;
use serde_json::{Value, json};

use crate::common::{
    datasets, fail, moescope, prompts, run_command, stderr, stdout, succeed, tiny,
};

/// A bench of the bundled model on the CPU, without peaks, which take seconds.
fn bench(arguments: &[&str]) -> Command {
    let mut command = moescope();
    command.arg("bench").arg(tiny()).args(["--device", "flex", "--no-peaks"]).args(arguments);
    command
}

#[test]
fn every_form_and_what_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let grid = ["-p", "8", "-n", "4", "-pg", "6,3", "-d", "0,5", "-b", "1,2", "-r", "5"];
    let run = |form: &str, file: &str| {
        let mut command = bench(&grid);
        command.current_dir(dir.path()).args(["--format", form, "-o", file]);
        succeed(&mut command)
    };
    let said = run("json", "base.json");
    let plan = stderr(&said);
    assert!(plan.contains("12 rows x 5 samples of text") && plan.contains("tg4 @ d5"), "{plan}");
    let document: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(document["rows"].as_array().unwrap().len(), 12);
    let row = &document["rows"][2];
    assert_eq!(row["samples"].as_array().unwrap().len(), 5);
    assert_eq!(row["summary"]["test"], "pp6+tg3");
    for name in ["tokens_per_second", "tokens_per_second_low", "ttft_ms", "tpot_ms", "itl_p99_ms"] {
        assert!(row["summary"][name].as_f64().is_some_and(|x| x > 0.0), "{name}: {row}");
    }
    // What was printed is what was written.
    let path = dir.path().join("base.json");
    let parsed = BenchResult::parse(&stdout(&said), Path::new("stdout")).unwrap();
    assert_eq!(BenchResult::read(&path).unwrap(), parsed);
    // One sequence through one token: exactly top-4 of 32 experts.
    let facts = &parsed[0].rows[1].facts;
    assert_eq!((facts.distinct_experts, facts.distinct_expected), (Some(4.0), Some(4.0)));
    let layers = facts.distinct_by_layer.iter();
    let layers: Vec<_> = layers.map(|l| (l.layer, l.measured, l.expected)).collect();
    assert_eq!(layers, (0..6).map(|layer| (layer, 4.0, 4.0)).collect::<Vec<_>>());
    assert!(facts.bytes_per_token.is_some_and(|bytes| bytes > 0.0), "{facts:?}");
    assert!(parsed[0].fingerprint.model.weights_hash.len() > 8);

    // Appended to: two results, each whole.
    let said = run("markdown", "base.json");
    assert_eq!(BenchResult::read(&path).unwrap().len(), 2);
    let markdown = stdout(&said);
    let head = "| model | size | params | backend | test | t/s |";
    assert!(markdown.starts_with(head) && markdown.contains("| pp8 @ d5 b2 |"), "{markdown}");
    run("text", "rows.csv");
    let table = stdout(&run("csv", "rows.csv"));
    let file = std::fs::read_to_string(dir.path().join("rows.csv")).unwrap();
    assert_eq!(file.lines().count(), 1 + 2 * 12);
    assert_eq!(file.lines().filter(|line| line.starts_with("id,")).count(), 1);
    assert!(file.ends_with(table.split_once('\n').unwrap().1));

    // The gate finds all that is deterministic unchanged; the history takes the file.
    std::fs::write(dir.path().join("moescope.toml"), "[gate]\nthreshold = 50.0\n").unwrap();
    let mut gate = moescope();
    let said = succeed(gate.current_dir(dir.path()).args(["gate", "base.json", "base.json"]));
    assert!(stdout(&said).contains("text pp8 d5 b2"), "{}", stdout(&said));
    let mut history = moescope();
    history.current_dir(dir.path()).args(["history", "add", "base.json", "--history", "h"]);
    assert_eq!(stdout(&succeed(&mut history)).lines().count(), 2);
    // Files of something else are left alone, before anything is measured.
    std::fs::write(dir.path().join("notes.json"), "{}").unwrap();
    std::fs::write(dir.path().join("other.csv"), "a,b\n").unwrap();
    for (file, says) in [("notes.json", "notes.json"), ("other.csv", "other columns")] {
        fail(bench(&["-o", file]).current_dir(dir.path()), &[says]);
    }
}

/// Ctrl-C ends the sample in progress and keeps the rest.
#[cfg(unix)]
#[test]
fn an_interrupted_bench_keeps_its_samples() {
    // On a machine that has no time for it a bench may take longer to its first sample.
    let sampled = [300, 3_000, 30_000].into_iter().any(|ms| {
        let rows = interrupted_after(std::time::Duration::from_millis(ms));
        rows.iter().any(|row| !row.samples.is_empty())
    });
    assert!(sampled, "no sample in 30 s");
}

/// The rows of a bench that got Ctrl-C this long after it had begun to sample.
#[cfg(unix)]
fn interrupted_after(wait: std::time::Duration) -> Vec<moescope_trace::bench::BenchRow> {
    let dir = tempfile::tempdir().unwrap();
    let mut command =
        bench(&["-p", "16", "-n", "8", "-r", "10000", "--format", "json", "-o", "kept"]);
    command.current_dir(dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    while !said.contains("sampling in turns") {
        assert!(lines.read_line(&mut said).unwrap() > 0, "it ended before it sampled: {said}");
    }
    std::thread::sleep(wait);
    let mut kill = Command::new("kill");
    assert!(kill.arg("-INT").arg(child.id().to_string()).status().unwrap().success());
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    lines.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    let mut results = BenchResult::parse(&printed, Path::new("stdout")).unwrap();
    for row in &results[0].rows {
        let taken = row.samples.len();
        assert_eq!(row.error.as_deref(), Some(&*format!("interrupted ({taken} of 10000 samples)")));
        assert!(taken < 10000 && row.cold.is_some());
    }
    assert_eq!(BenchResult::read(&dir.path().join("kept")).unwrap(), results);
    results.remove(0).rows
}

/// Tokens and experts of a run, forced upon another model.
#[test]
fn a_run_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let ids: Vec<u32> = (0..40).map(|i| 10 + i * 37 % 900).collect();
    let records = [json!({"id": "a", "domain": "d", "token_ids": ids})];
    let recorded = dir.path().join("run");
    let mut command = run_command(&prompts(dir.path(), &records), &recorded);
    succeed(command.args(["--max-tokens", "0"]));
    let measure = |model: &Path, arguments: &[&str]| {
        let mut command = moescope();
        command.arg("bench").arg(model).args(arguments).arg(&recorded);
        command.args([
            "--device",
            "flex",
            "--no-peaks",
            "-p",
            "30",
            "-n",
            "6",
            "-d",
            "10",
            "-r",
            "1",
        ]);
        let said = succeed(command.args(["--format", "jsonl"]));
        BenchResult::parse(&stdout(&said), Path::new("stdout")).unwrap().remove(0).rows
    };
    let early = datasets().join("tiny-gemma4-moe-early");
    let replayed = measure(&early, &["--workload", "replay"]);
    let own = measure(&tiny(), &["--workload", "replay"]);
    for (replayed, own) in replayed.iter().zip(&own) {
        assert_eq!(replayed.configuration.workload, "replay");
        assert_eq!(replayed.facts.routing_hash, own.facts.routing_hash);
        assert_ne!(replayed.facts.tokens_hash, own.facts.tokens_hash, "another model all the same");
    }
    let other = datasets().join("../crates/moescope-model/tests/fixtures/gemma4-moe");
    let mut command = moescope();
    command.arg("bench").arg(other).args(["--workload", "replay"]).arg(&recorded);
    fail(command.args(["--device", "flex"]), &["layer 0 of the model", "of 32 experts"]);
}

#[test]
fn what_can_not_be_measured_is_refused_before_loading() {
    fail(
        &mut bench(&["-p", "4000", "-d", "200"]),
        &["pp4000 d200", "4200 tokens", "4096", "-d, -p or -n"],
    );
    fail(&mut bench(&["-p", "0", "-n", "0"]), &["no rows"]);
    fail(&mut bench(&["-p", "8-4"]), &["8-4", "smaller"]);
    fail(&mut bench(&["--workload", "replay"]), &["replay RUN"]);
    fail(&mut bench(&["runs/x"]), &["runs/x", "--workload replay"]);
    fail(
        &mut bench(&["--workload", "random", "--prompts", "x"]),
        &["--prompts", "--workload text"],
    );
    fail(&mut bench(&["--memory-limit", "1MiB"]), &["does not fit", "--memory-limit"]);
    let mut command = moescope();
    command.args(["bench", "gemma-4-26b-a4b", "--random-weights", "--workload", "text"]);
    fail(command.args(["--device", "flex"]), &["--tokenizer", "token_ids", "random or replay"]);
}

/// A row that does not fit says so, and the others are measured.
#[test]
fn a_row_that_does_not_fit_keeps_the_reason() {
    let mut command = bench(&["-p", "4,2048", "-n", "0", "-r", "1", "--memory-limit", "32MiB"]);
    let said = succeed(command.args(["--format", "jsonl"]));
    let rows = BenchResult::parse(&stdout(&said), Path::new("stdout")).unwrap().remove(0).rows;
    assert_eq!((rows[0].error.as_deref(), rows[0].samples.len()), (None, 1));
    let error = rows[1].error.as_deref().unwrap();
    assert!(error.contains("does not fit") && error.ends_with("(0 of 1 samples)"), "{error}");
    assert!(stderr(&said).contains("pp2048"), "{}", stderr(&said));
}

/// Random weights are called so wherever numbers are printed, and need no tokenizer.
#[test]
fn labels_are_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    std::fs::copy(tiny().join("config.json"), &config).unwrap();
    for form in ["text", "markdown", "csv", "json", "jsonl"] {
        let mut command = moescope();
        command.arg("bench").arg(&config).args([
            "--random-weights",
            "--layers",
            "2",
            "--device",
            "flex",
        ]);
        command.args(["--no-peaks", "-p", "4", "-n", "2", "-r", "1", "--format", form]);
        let said = succeed(&mut command);
        assert!(stderr(&said).contains("--workload random"), "{}", stderr(&said));
        let text = stdout(&said);
        for label in ["random weights", "first 2 of 6 layers"] {
            assert!(text.contains(label), "{form}: {text}");
        }
    }
}
