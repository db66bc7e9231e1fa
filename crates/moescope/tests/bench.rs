//! `bench` as a user runs it.

#[cfg(unix)]
use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStderr, Stdio},
};
use std::{path::Path, process::Command};

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

    // Added to: two results in one document.
    let said = run("markdown", "base.json");
    assert_eq!(BenchResult::read(&path).unwrap()[0], parsed[0]);
    let document: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(document.as_array().unwrap().len(), 2);
    assert!(document[1]["labels"].is_array(), "{document}");
    let markdown = stdout(&said);
    let head = "| model | size | params | backend | test | t/s |";
    assert!(markdown.starts_with(head) && markdown.contains("| pp8 @ d5 b2 |"), "{markdown}");
    says_all_conditions(&parsed[0], &markdown);
    says_all_conditions(&parsed[0], &stdout(&run("text", "rows.csv")));
    let table = stdout(&run("csv", "rows.csv"));
    let file = std::fs::read_to_string(dir.path().join("rows.csv")).unwrap();
    assert_eq!(file.lines().count(), 1 + 2 * 12);
    assert_eq!(file.lines().filter(|line| line.starts_with("id,")).count(), 1);
    assert!(file.ends_with(table.split_once('\n').unwrap().1));
    // Names are columns: `CPU governor` is `cpu_governor`.
    let header: Vec<&str> = file.lines().next().unwrap().split(',').collect();
    let fields = parsed[0].fingerprint.fields().into_iter().map(|(_, name, _)| name);
    for name in fields.chain(["git commit", "load average", "autotune decisions", "workload hash"])
    {
        let name = name.to_lowercase().replace([' ', '-'], "_");
        assert!(header.contains(&&*name), "{name}: {header:?}");
    }
    let line = file.lines().nth(1).unwrap();
    let weights = &parsed[0].fingerprint.model.weights_hash;
    assert!(line.contains(weights) && line.contains(&parsed[0].fingerprint.host.os), "{line}");

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

/// Everything that has to agree, in the words of the fingerprint; hashes by their first digits.
fn says_all_conditions(result: &BenchResult, text: &str) {
    // Markdown escapes.
    let text = text.replace('\\', "");
    for (_, name, value) in result.fingerprint.fields() {
        let start: String = value.chars().take(12).collect();
        let says = text.contains(&format!("{name} {start}"));
        // The machine may be busier by now.
        let free = value == "unknown" || name == "load at the start";
        assert!(says || free, "{name} {start}: {text}");
    }
    assert!(text.contains("moescope version") && text.contains("workload hash"), "{text}");
}

/// On a device with kernels: they are counted and tuned, its pools have peaks, the first pass is the slow one.
#[test]
fn a_bench_on_wgpu_knows_its_kernels_and_pools() {
    let mut command = moescope();
    command.arg("bench").arg(tiny()).args(["--device", "wgpu", "--no-peaks"]);
    command.args(["-p", "8", "-n", "2", "-r", "1", "--format", "json"]);
    let said = succeed(command.env("CUBECL_AUTOTUNE_LEVEL", "minimal"));
    let result = BenchResult::parse(&stdout(&said), Path::new("stdout")).unwrap().remove(0);
    let fingerprint = &result.fingerprint;
    assert_eq!(fingerprint.device.backend, "wgpu");
    assert_eq!(fingerprint.autotune.level.as_deref(), Some("minimal"));
    let decisions = &fingerprint.autotune.decisions;
    assert!(!decisions.is_empty() && decisions.iter().all(|one| one.contains(" -> ")));
    assert_eq!(result.rows.len(), 2);
    for row in &result.rows {
        let facts = &row.facts;
        assert_eq!((&row.error, row.samples.len()), (&None, 1), "{row:?}");
        // At least a kernel per layer and component.
        assert!(facts.dispatches.is_some_and(|n| n >= 6.0 * 10.0), "{facts:?}");
        let in_use = facts.peak_bytes_in_use.unwrap();
        assert!(in_use >= fingerprint.model.bytes, "weights lie in the pools: {facts:?}");
        assert!(facts.peak_bytes_reserved.unwrap() >= in_use, "{facts:?}");
    }
    // The first row pays for shaders and tuning.
    let row = &result.rows[0];
    let cold = row.cold.as_ref().unwrap().prefill_ns.unwrap();
    let warm = row.samples[0].prefill_ns.unwrap();
    assert!(cold > 2 * warm, "cold {cold} ns, warm {warm} ns");
}

/// A bench that says what it does line by line, and can be interrupted.
#[cfg(unix)]
struct Running {
    child: Child,
    lines: BufReader<ChildStderr>,
    said: String,
}

#[cfg(unix)]
impl Running {
    fn start(dir: &Path, command: &mut Command) -> Self {
        command.current_dir(dir).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        Running { child, lines, said: String::new() }
    }

    fn wait_for(&mut self, words: &str) {
        while !self.said.contains(words) {
            let read = self.lines.read_line(&mut self.said).unwrap();
            assert!(read > 0, "it ended before it said {words:?}: {}", self.said);
        }
    }

    fn interrupt(&self) {
        let mut kill = Command::new("kill");
        assert!(kill.arg("-INT").arg(self.child.id().to_string()).status().unwrap().success());
    }

    /// What it printed and said, once it has ended as one that was interrupted.
    fn ended(mut self) -> (String, String) {
        let mut printed = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        self.lines.read_to_string(&mut self.said).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(130), "{}", self.said);
        (printed, self.said)
    }
}

/// Ctrl-C ends the forward pass in progress and keeps the samples before.
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
    let arguments = ["-p", "16", "-n", "8", "-r", "10000", "--format", "json", "-o", "kept"];
    let mut running = Running::start(dir.path(), &mut bench(&arguments));
    running.wait_for("sampling in turns");
    std::thread::sleep(wait);
    running.interrupt();
    let (printed, said) = running.ended();
    assert!(said.contains("stopping after this pass; Ctrl-C again loses the rows"), "{said}");
    let mut results = BenchResult::parse(&printed, Path::new("stdout")).unwrap();
    for row in &results[0].rows {
        let taken = row.samples.len();
        assert_eq!(row.error.as_deref(), Some(&*format!("interrupted ({taken} of 10000 samples)")));
        assert!(taken < 10000 && row.cold.is_some());
    }
    assert_eq!(BenchResult::read(&dir.path().join("kept")).unwrap(), results);
    results.remove(0).rows
}

/// Filling a depth is many passes: Ctrl-C is heard between them.
#[cfg(unix)]
#[test]
fn filling_a_depth_is_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["-p", "0", "-n", "1", "-d", "4000", "-b", "8", "-r", "1", "-o", "kept"];
    let mut running = Running::start(dir.path(), &mut bench(&arguments));
    running.wait_for("first passes");
    running.interrupt();
    let (_, said) = running.ended();
    assert!(said.contains("stopping after this pass"), "{said}");
    let rows = BenchResult::read(&dir.path().join("kept")).unwrap().remove(0).rows;
    assert_eq!(rows[0].error.as_deref(), Some("interrupted (0 of 1 samples)"));
    // It would be there if the depth had been filled.
    assert_eq!(rows[0].cold, None);
}

/// Samples of several processes in one result: as many as were asked for, each marked with its process.
#[test]
fn samples_are_spread_over_processes() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["-p", "4", "-n", "0", "-r", "5", "--processes", "3", "-o", "kept.jsonl"];
    let said = succeed(bench(&arguments).current_dir(dir.path()).args(["--format", "json"]));
    assert!(stderr(&said).contains("process 3 of 3"), "{}", stderr(&said));
    let result = BenchResult::parse(&stdout(&said), Path::new("stdout")).unwrap();
    assert_eq!(BenchResult::read(&dir.path().join("kept.jsonl")).unwrap(), result);
    let row = &result[0].rows[0];
    let processes: Vec<u32> = row.samples.iter().map(|sample| sample.process).collect();
    assert_eq!((processes.as_slice(), &row.error), ([0, 0, 1, 1, 2].as_slice(), &None));
    assert!(row.samples.is_sorted_by_key(|sample| sample.at_ns), "{:?}", row.samples);
    assert!(result[0].command.contains(&"--processes".into()), "{:?}", result[0].command);
    fail(&mut bench(&["-r", "2", "--processes", "3"]), &["--processes 3", "-r to 3"]);
}

/// Rows are in the file before peaks are measured, whatever happens then; undisturbed, peaks join them.
#[cfg(unix)]
#[test]
fn rows_are_safe_while_peaks_are_measured() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["kept.jsonl", "kept.json", "kept.csv"] {
        let mut command = moescope();
        command.arg("bench").arg(tiny()).args(["--device", "flex", "-p", "4", "-n", "0"]);
        let running = Running::start(dir.path(), command.args(["-r", "1", "-o", name]));
        let kept = || std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        while kept().is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        // Twice: it ends at once.
        running.interrupt();
        running.interrupt();
        running.ended();
        assert!(kept().contains("pp4"), "{}", kept());
    }
    let path = dir.path().join("kept.jsonl");
    let read = || BenchResult::read(&path).unwrap();
    assert_eq!((read().len(), read()[0].peaks, read()[0].rows[0].samples.len()), (1, None, 1));
    let mut command = moescope();
    command.arg("bench").arg(tiny()).args(["--device", "flex", "-p", "4", "-n", "0"]);
    succeed(command.current_dir(dir.path()).args(["-r", "1", "-o", "kept.jsonl"]));
    assert_eq!(read().len(), 2, "what was written before the peaks was replaced");
    assert!(read()[1].peaks.is_some());
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
