//! `gate` and `history` as a user runs them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::{datasets, fail, moescope, prompts, stderr, stdout, succeed, tiny};

/// A bench result whose times are around 1 ms per token, `slow` times as long.
fn bench(slow: f64, rows: usize) -> Value {
    // A little spread, the same in every file.
    let noise = |at: usize| 1.0 + 0.002 * ((at * 7 + 3) % 11) as f64;
    let ns = |at: usize| (1e6 * slow * noise(at)) as u64;
    let row = |prompt: usize| {
        let sample = |at: usize| {
            json!({
                "at_ns": at,
                "prefill_ns": ns(at) * prompt as u64,
                "decode_ns": [ns(at + 1), ns(at + 2), ns(at + 3)],
            })
        };
        json!({
            "configuration": {
                "workload": "text", "prompt": prompt, "generate": 3, "depth": 0, "batch": 1
            },
            "samples": (0..10).map(sample).collect::<Vec<_>>(),
            "facts": {"tokens_hash": "a", "routing_hash": "b", "peak_bytes_in_use": 1000},
        })
    };
    json!({
        "kind": "moescope-bench",
        "schema_version": 1,
        "id": format!("id{slow}"),
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
            "git_commit": "0123456789ab"
        },
        "rows": (1..=rows).map(row).collect::<Vec<_>>(),
    })
}

fn write(dir: &Path, name: &str, document: &Value) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, document.to_string()).unwrap();
    path
}

/// Exit code, stdout and stderr of a gate in a directory.
fn gate(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = moescope().arg("gate").args(arguments).current_dir(dir).output().unwrap();
    (output.status.code().unwrap(), stdout(&output), stderr(&output))
}

#[test]
fn exit_codes_say_passed_regressed_or_error() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "base.json", &bench(1.0, 2));
    write(dir.path(), "slow.json", &bench(1.2, 2));
    let (code, said, error) = gate(dir.path(), &["base.json", "base.json"]);
    assert_eq!(code, 0, "{said}{error}");
    assert!(said.contains("passed") && said.contains("text pp1 tg3 b1"), "{said}");
    let (code, said, error) = gate(dir.path(), &["base.json", "slow.json"]);
    assert_eq!(code, 1, "{said}{error}");
    assert!(said.contains("1.200") && said.contains("regressed") && error.is_empty(), "{said}");
    // A threshold above the difference; a misspelt one.
    std::fs::write(dir.path().join("moescope.toml"), "[gate]\nthreshold = 0.3\n").unwrap();
    assert_eq!(gate(dir.path(), &["base.json", "slow.json"]).0, 0);
    std::fs::write(dir.path().join("typo.toml"), "[gate]\nthreshhold = 0.3\n").unwrap();
    let (code, said, error) =
        gate(dir.path(), &["base.json", "slow.json", "--config", "typo.toml"]);
    assert!(code == 2 && said.is_empty() && error.contains("threshhold"), "{error}");
}

#[test]
fn what_does_not_compare_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "base.json", &bench(1.0, 1));
    let refuse = |change: fn(&mut Value), parts: &[&str]| {
        let mut document = bench(1.0, 1);
        change(&mut document);
        let new = write(dir.path(), "new.json", &document);
        let mut command = moescope();
        command.arg("gate").arg(dir.path().join("base.json")).arg(new);
        fail(&mut command, parts);
    };
    refuse(|d| d["fingerprint"] = Value::Null, &["new.json", "no `fingerprint`"]);
    refuse(|d| d["rows"][0]["samples"] = json!([]), &["new.json", "zero samples"]);
    refuse(|d| d["rows"][0]["samples"][0]["prefill_ns"] = json!(0), &["prefill time"]);
    refuse(|d| d["schema_version"] = json!(9), &["schema version 9", "reads version 1"]);
    refuse(|d| d["rows"][0]["samples"][0]["prefill_ns"] = json!(-1), &["not a bench result"]);
    refuse(
        |d| d["fingerprint"]["device"]["adapter"] = json!("another"),
        &["cpu against another", "--across-devices"],
    );
    refuse(|d| d["fingerprint"]["model"]["weights_hash"] = json!("x"), &["--across-models"]);
    let nan = bench(1.0, 1).to_string().replace("[100", "[NaN");
    let nan = nan.replace("\"at_ns\":0", "\"at_ns\":NaN");
    std::fs::write(dir.path().join("nan.json"), nan).unwrap();
    let mut command = moescope();
    command.current_dir(dir.path()).args(["gate", "base.json", "nan.json"]);
    fail(&mut command, &["nan.json", "not a bench result"]);
    let mut command = moescope();
    fail(command.args(["gate", "one.json", "--run", "a"]), &["--run"]);
}

#[test]
fn every_form_of_a_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let mut slow = bench(1.2, 30);
    slow["rows"][0]["error"] = json!("lost\n::error::it | <b> \u{1b}[31m 100 %");
    write(dir.path(), "base.json", &bench(1.0, 30));
    write(dir.path(), "slow.json", &slow);
    std::fs::write(dir.path().join("summary.md"), "before\n").unwrap();
    let mut command = moescope();
    command.current_dir(dir.path()).env("GITHUB_STEP_SUMMARY", "summary.md");
    command.args(["gate", "base.json", "slow.json", "--format", "json"]);
    for form in ["markdown=summary.md", "github=notes", "junit=gate.xml", "badge=badge.json"] {
        command.args(["--write", form]);
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(verdict["regressed"], true);
    // Thirty rows of two times and three facts, and the row that did not complete.
    assert_eq!(verdict["checks"].as_array().unwrap().len(), 30 * 5 + 1);
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let summary = read("summary.md");
    assert!(summary.starts_with("before\n### moescope gate: regressed: 61 of 151"), "{summary}");
    assert!(summary.contains("\\<b>") && !summary.contains('\u{1b}'), "{summary}");
    let table = summary.lines().filter(|line| line.starts_with("| "));
    // Heading, rule and checks.
    assert_eq!(table.count(), 2 + 151);
    let notes = read("notes");
    assert_eq!(notes.lines().count(), 10);
    let (errors, notice) = notes.trim_end().rsplit_once('\n').unwrap();
    assert!(errors.lines().all(|line| line.starts_with("::error title=moescope")), "{notes}");
    // What a reader must know of the numbers.
    assert!(notice.starts_with("::notice title=moescope%3A notes::"), "{notes}");
    assert!(notice.contains("base.json: random weights%0Aslow.json: random weights"), "{notes}");
    assert!(notes.contains("%0A::error::it") && notes.contains("100 %25"), "{notes}");
    assert!(errors.lines().last().unwrap().contains("53 more"), "{notes}");
    let junit = read("gate.xml");
    assert!(junit.contains("tests=\"151\"") && junit.contains("failures=\"61\""), "{junit}");
    assert!(junit.contains("&lt;b&gt;") && !junit.contains('\u{1b}'), "{junit}");
    // The labels of both, and what is not recorded.
    assert_eq!(junit.matches("property name=\"note\"").count(), 3, "{junit}");
    assert!(junit.contains("<system-out>base.json: random weights"), "{junit}");
    let badge: Value = serde_json::from_str(&read("badge.json")).unwrap();
    assert_eq!((&badge["schemaVersion"], &badge["message"]), (&json!(1), &json!("61 regressed")));
    let all = [&summary, &notes, &junit, &stdout(&output)];
    let missing = |text: &&String| text.contains("not recorded on either side");
    assert!(all.iter().all(missing), "{all:?}");
}

/// A fact that only one side has fails nothing; every form says that it was not checked.
#[test]
fn what_is_undecided_is_said_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let mut without = bench(1.0, 1);
    without["rows"][0]["facts"]["routing_hash"] = Value::Null;
    write(dir.path(), "base.json", &bench(1.0, 1));
    write(dir.path(), "new.json", &without);
    for form in ["text", "markdown", "github", "junit", "json", "badge"] {
        let (code, said, error) = gate(dir.path(), &["base.json", "new.json", "--format", form]);
        assert_eq!(code, 0, "{said}{error}");
        assert!(said.contains("undecided"), "{form}: {said}");
        assert!(form == "badge" || said.contains("recorded on one side only"), "{form}: {said}");
    }
}

/// Nothing was compared: no form of an earlier verdict stays as if it were this one's.
#[test]
fn an_error_is_written_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "base.json", &bench(1.0, 1));
    let mut other = bench(1.0, 1);
    other["fingerprint"]["device"]["adapter"] = json!("an <b>other</b>\n::error::\u{1b}[31m");
    write(dir.path(), "other.json", &other);
    let written = |new: &str| {
        let mut command = moescope();
        command.current_dir(dir.path()).args(["gate", "base.json", new, "--format", "github"]);
        for form in ["text=t", "markdown=m", "github=g", "junit=j", "json=v", "badge=b"] {
            command.args(["--write", form]);
        }
        command.output().unwrap()
    };
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(written("base.json").status.code(), Some(0));
    assert!(read("b").contains("passed"));
    let output = written("other.json");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--across-devices"));
    assert_eq!(stdout(&output), read("g"));
    assert!(read("g").starts_with("::error title=moescope%3A nothing was compared::"));
    assert_eq!(read("g").lines().count(), 1);
    assert!(read("t").starts_with("error: "));
    assert!(read("m").starts_with("### moescope gate: error") && read("m").contains("\\<b>"));
    let junit = read("j");
    assert!(junit.contains("errors=\"1\"") && junit.contains("<error"), "{junit}");
    let document: Value = serde_json::from_str(&read("v")).unwrap();
    assert!(document["error"].as_str().unwrap().contains("not comparable"), "{document}");
    let badge: Value = serde_json::from_str(&read("b")).unwrap();
    assert_eq!(badge["message"], "error");
    for form in ["t", "m", "g", "j"] {
        assert!(!read(form).contains('\u{1b}'), "{form}");
    }
    // A configuration that can't be used is an error too, and a file that is not there.
    std::fs::write(dir.path().join("moescope.toml"), "[gate]\nthreshhold = 1\n").unwrap();
    std::fs::remove_file(dir.path().join("b")).unwrap();
    assert_eq!(written("base.json").status.code(), Some(2));
    assert!(read("b").contains("error") && read("t").contains("threshhold"));
}

/// Ctrl-C ends a gate and takes its folder along.
#[cfg(unix)]
#[test]
fn an_interrupted_gate_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "base.json", &bench(1.0, 1));
    let temporary = dir.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let mut command = moescope();
    command.current_dir(dir.path()).env("TMPDIR", &temporary);
    command.args(["gate", "--run", "touch began; sleep 1; cp base.json {out}"]);
    command.args(["--vs", "cp base.json {out}", "--write", "badge=badge.json"]);
    let mut gate = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    while !dir.path().join("began").exists() {
        assert!(gate.try_wait().unwrap().is_none(), "the gate ended before its first command");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 1);
    let id = gate.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = gate.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("interrupted after 1 of 20"), "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
    assert!(std::fs::read_to_string(dir.path().join("badge.json")).unwrap().contains("error"));
}

#[test]
fn a_summary_stays_under_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "base.json", &bench(1.0, 2500));
    let (code, said, error) = gate(dir.path(), &["base.json", "base.json", "--format", "markdown"]);
    assert_eq!(code, 0, "{error}");
    assert!(said.len() < 1 << 20 && said.contains("more checks are left out"), "{}", said.len());
}

#[test]
fn commands_are_run_in_turns() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "base.json", &bench(1.0, 1));
    write(dir.path(), "slow.json", &bench(1.2, 1));
    let log = |letter: &str, file: &str| format!("printf {letter} >> log; cat {file}");
    let read = || std::fs::read_to_string(dir.path().join("log")).unwrap();
    let (a, b) = (log("A", "base.json"), log("B", "base.json"));
    let (code, said, error) = gate(dir.path(), &["--run", &a, "--vs", &b, "--pairs", "6"]);
    assert_eq!(code, 0, "{said}{error}");
    assert_eq!(read(), "ABBAABBAABBA");
    // Worse: measured again, as many pairs, and then certain.
    std::fs::remove_file(dir.path().join("log")).unwrap();
    let (code, said, error) =
        gate(dir.path(), &["--run", &a, "--vs", &log("B", "slow.json"), "--pairs", "6"]);
    assert_eq!(code, 1, "{said}{error}");
    assert_eq!(read().len(), 24);
    assert!(said.contains("a second measurement agrees (x1.200)"), "{said}");
    // Results written to a file; a command that fails.
    let copy = ["--run", "cp base.json \"{out}\"", "--vs", "cp base.json {out}", "--pairs", "5"];
    assert_eq!(gate(dir.path(), &copy).0, 0);
    let broken = ["--run", "cat base.json", "--vs", "echo no such model >&2; exit 3"];
    let (code, _, error) = gate(dir.path(), &broken);
    assert!(code == 2 && error.contains("--vs") && error.contains("no such model"), "{error}");
    let (code, _, error) = gate(dir.path(), &["--run", "echo 1", "--vs", "echo 1"]);
    assert!(code == 2 && error.contains("--run (stdout)"), "{error}");
}

/// Two recordings of one model agree in all that is deterministic; an earlier checkpoint routes
/// differently.
#[test]
fn runs_are_gated_by_their_routing() {
    let dir = tempfile::tempdir().unwrap();
    let text = "The router sends every token to four of thirty-two experts.";
    let records: Vec<Value> = (0..6)
        .map(|n| json!({"id": format!("{n}"), "domain": "d", "text": format!("{n}: {text}")}))
        .collect();
    let prompts = prompts(dir.path(), &records);
    let record = |model: &Path, name: &str| {
        let mut command = moescope();
        command.arg("run").arg(model).arg("--prompts").arg(&prompts);
        command.arg("-o").arg(dir.path().join(name)).args([
            "--device",
            "flex",
            "--max-tokens",
            "6",
        ]);
        succeed(&mut command);
    };
    record(&tiny(), "a");
    record(&tiny(), "b");
    record(&datasets().join("tiny-gemma4-moe-early"), "early");
    // Times of a loaded machine are not what this test is about.
    std::fs::write(dir.path().join("moescope.toml"), "[gate]\nthreshold = 50.0\n").unwrap();
    let (code, said, error) = gate(dir.path(), &["a", "b"]);
    assert_eq!(code, 0, "{said}{error}");
    for metric in ["tokens", "routing", "balance", "prefill", "decode"] {
        assert!(said.contains(metric), "{said}");
    }
    // A run says in what state the machine was, and the gate where that differs.
    let file = dir.path().join("b/manifest.json");
    let mut manifest: Value =
        serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    if cfg!(target_os = "linux") {
        assert!(manifest["state"]["load_average"][0].is_number(), "{manifest}");
    }
    manifest["state"]["power_source"] = json!("battery of a test");
    std::fs::write(&file, manifest.to_string()).unwrap();
    let (code, said, error) = gate(dir.path(), &["a", "b"]);
    assert_eq!(code, 0, "{said}{error}");
    assert!(said.contains("another state") && said.contains("battery of a test"), "{said}");
    let (code, _, error) = gate(dir.path(), &["a", "early"]);
    assert!(code == 2 && error.contains("weights hash"), "{error}");
    let (code, said, error) = gate(dir.path(), &["a", "early", "--across-models"]);
    assert_eq!(code, 1, "{said}{error}");
    assert!(said.contains("overlap 0.") && said.contains("--across-models"), "{said}");
    // A run and a bench result are different things.
    write(dir.path(), "bench.json", &bench(1.0, 1));
    let (code, _, error) = gate(dir.path(), &["a", "bench.json"]);
    assert!(code == 2 && error.contains("bench result"), "{error}");

    // Runs go into a history as well.
    let history = dir.path().join("history");
    let add = |what: &Path| {
        let mut command = moescope();
        command.args(["history", "add"]).arg(what).arg("--history").arg(&history);
        command
    };
    succeed(&mut add(&dir.path().join("a")));
    succeed(&mut add(&dir.path().join("b")));
    fail(&mut add(&dir.path().join("a")), &["exists already"]);
    let mut show = moescope();
    show.args(["history", "show", "--format", "json", "--history"]).arg(&history);
    let trends: Value = serde_json::from_str(&stdout(&succeed(&mut show))).unwrap();
    let decode = trends.as_array().unwrap().iter().find(|t| t["metric"] == "decode").unwrap();
    assert_eq!(decode["points"].as_array().unwrap().len(), 2);
}

#[test]
fn a_history_tells_which_commit_changed_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = String::new();
    for day in 1..=20 {
        let slow = if day < 12 { 1.0 } else { 1.25 };
        let mut result = bench(slow * (1.0 + 0.001 * f64::from(day % 3)), 1);
        result["id"] = json!(format!("id{day}"));
        result["created_at"] = json!(format!("2026-07-{day:02}T00:00:00Z"));
        result["fingerprint"]["git_commit"] = json!(format!("commit{day}"));
        // A file that was appended to.
        file.push_str(&format!("{result}\n"));
    }
    std::fs::write(dir.path().join("all.json"), file).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = moescope();
        command.current_dir(dir.path()).arg("history").args(arguments);
        command
    };
    fail(&mut run(&["show"]), &["reports/history"]);
    let said = stdout(&succeed(&mut run(&["add", "all.json"])));
    assert_eq!(said.lines().count(), 20);
    let said = stdout(&succeed(&mut run(&["show", "--metric", "decode"])));
    assert!(said.contains("commit12 x0.8") && said.contains("dtype=f32"), "{said}");
    fail(&mut run(&["show", "--metric", "speed"]), &["speed", "decode", "prefill"]);
    let said = stdout(&succeed(&mut run(&["plot", "-o", "figure"])));
    // Two times and the peak, each as SVG and PNG.
    assert_eq!(said.lines().count(), 6);
    let read = |metric: &str| {
        std::fs::read_to_string(dir.path().join(format!("figure/trend-{metric}.svg"))).unwrap()
    };
    let svg = read("decode");
    assert!(svg.contains("commit12 x0.8"), "the commit stands in the figure");
    assert!(svg.contains(">commit1<"), "and on its axis");
    let constant = read("peak_bytes");
    assert!(svg.contains("change, with its") && !constant.contains("change, with its"));
}
