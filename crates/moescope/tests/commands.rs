//! The commands that succeed, and where their output goes.

use serde_json::{Value, json};

use crate::common::{datasets, moescope, prompts, run_command, stderr, stdout, succeed, tiny};

#[test]
fn run_prints_what_it_measured() {
    let dir = tempfile::tempdir().unwrap();
    let text = "The router sends every token to four of thirty-two experts.\n";
    let prompts = prompts(dir.path(), &[json!({"id": "a", "domain": "docs", "text": text})]);
    let output = dir.path().join("run");
    let said = stdout(&succeed(run_command(&prompts, &output).args(["--max-tokens", "8"])));
    for part in ["tiny-gemma4-moe", "prefill", "decode", "tokens/s", "nats per token"] {
        assert!(said.contains(part), "{said}");
    }
    let mut json = run_command(&prompts, &output);
    let said = stdout(&succeed(json.args(["--max-tokens", "8", "--force", "--format", "json"])));
    let summary: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(summary["prefill_tokens"], 25);
    assert_eq!(summary["scored_tokens"], 24 + summary["decode_tokens"].as_u64().unwrap());
    for folder in ["tokens", "routing", "steps"] {
        assert!(output.join(folder).join("part-00000.parquet").is_file(), "{folder}");
    }
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(output.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["status"], "complete");
    assert_eq!(manifest["model"]["total_parameters"], 6_183_686);
    assert_eq!(manifest["settings"]["timing_mode"], "end-to-end");
}

/// Uniform guessing over 4,096 tokens is -8.3 nats per token.
#[test]
fn the_bundled_model_predicts() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = run_command(&datasets().join("prompts"), &dir.path().join("run"));
    command.args(["--per-domain", "2", "--max-tokens", "0", "--format", "json"]);
    let summary: Value = serde_json::from_str(&stdout(&succeed(&mut command))).unwrap();
    let mean = summary["mean_logprob_nats"].as_f64().unwrap();
    assert!(mean > -6.0 && mean < -1.0, "{mean} nats per token");
}

#[test]
fn prompts_come_from_files_directories_and_stdin() {
    use std::{io::Write, process::Stdio};
    let dir = tempfile::tempdir().unwrap();
    let record = json!({"id": "a", "domain": "d", "token_ids": [2, 795, 3884]});
    let mut command = run_command(std::path::Path::new("-"), &dir.path().join("stdin"));
    command.args(["--max-tokens", "0", "--format", "json"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    write!(child.stdin.take().unwrap(), "{record}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    // Token ids are taken as they are: no BOS is added.
    assert_eq!(serde_json::from_str::<Value>(&stdout(&output)).unwrap()["prefill_tokens"], 3);

    std::fs::write(dir.path().join("plain.txt"), "A plain text.").unwrap();
    succeed(&mut run_command(&dir.path().join("plain.txt"), &dir.path().join("text")));
}

#[test]
fn profiled_runs_say_so_and_time_components() {
    let dir = tempfile::tempdir().unwrap();
    let prompts = prompts(dir.path(), &[json!({"id": "a", "domain": "d", "text": "One two."})]);
    let output = dir.path().join("run");
    succeed(run_command(&prompts, &output).args(["--max-tokens", "4", "--profile"]));
    let run = moescope_trace::Run::open(&output).unwrap();
    assert_eq!(run.manifest().settings.timing_mode, moescope_trace::manifest::TimingMode::Profiled);
    let tables = run.read().unwrap();
    let layers = tables.layers.expect("a profiled run has times per component");
    let steps = tables.steps.step.len();
    // Six layers of five components, embedding and head.
    assert_eq!(layers.duration_ns.len(), steps * (6 * 5 + 2));
}

#[test]
fn analyze_prints_every_metric_or_one() {
    let dir = tempfile::tempdir().unwrap();
    let record = |id: &str, domain: &str| json!({"id": id, "domain": domain, "text": "One, two."});
    let prompts = prompts(dir.path(), &[record("a", "x,y"), record("b", "z")]);
    let run = dir.path().join("run");
    succeed(run_command(&prompts, &run).args(["--max-tokens", "4"]));
    let analyze =
        |options: &[&str]| stdout(&succeed(moescope().arg("analyze").arg(&run).args(options)));
    let text = analyze(&[]);
    for metric in ["utilisation", "gini", "domain_specialisation", "router_entropy", "throughput"] {
        assert!(text.contains(metric), "{metric}");
    }
    // Six layers of 32 experts: over all and by phase where all rows are wanted, as they are by default.
    let csv = |options: &[&str]| {
        analyze(&[&["--metric", "utilisation", "--format", "csv"], options].concat())
    };
    assert!(csv(&[]).starts_with(
        "run,metric,layer,index,index_kind,index_first,index_second,domain,phase,value,low,high,chance,unit\n"
    ));
    for (options, rows) in [
        (&[][..], 3),
        (&["--by", "all"], 3),
        (&["--by", "none"], 1),
        (&["--by", "phase"], 2),
        (&["--by", "domain"], 0),
    ] {
        assert_eq!(csv(options).lines().count(), 1 + rows * 6 * 32, "{options:?}");
    }
    let by_domain = ["--metric", "utilisation", "--metric", "gini", "--by", "domain"];
    let output = succeed(moescope().arg("analyze").arg(&run).args(by_domain));
    assert_eq!(stderr(&output).trim_end(), "no rows by domain: utilisation");
    assert!(stdout(&output).contains("gini") && !stdout(&output).contains("utilisation"));
    let json: Value =
        serde_json::from_str(&analyze(&["--metric", "gini", "--by", "domain", "--format", "json"]))
            .unwrap();
    let rows = json.as_array().unwrap();
    assert_eq!(rows.len(), 6 * 2);
    assert!(rows.iter().any(|row| row["domain"] == "x,y"));
    let file = dir.path().join("table.parquet");
    analyze(&["--format", "parquet", "-o", file.to_str().unwrap()]);
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    // A line per metric, or a few where it has sizes, whatever the number of experts; with intervals, on a
    // screen of 100 columns.
    let most = 3 * moescope_analysis::METRICS.len();
    assert!(text.lines().count() < most, "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    for part in ["run: tiny-gemma4-moe", "95 %", "chance", "lowest", "highest"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Two runs are numbered.
    let output = succeed(moescope().arg("analyze").arg(&run).arg(&run));
    let text = stdout(&output);
    assert!(text.contains("run 1: ") && text.contains("run 2: "), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 103), "{text}");
    // Every pair of experts instead of the strongest ten; other metrics as they are.
    let pairs = |options: &[&str]| {
        let csv = analyze(&[options, &["--format", "csv", "--by", "none"]].concat());
        let of = |metric: &str| csv.lines().filter(|line| line.contains(metric)).count();
        [of(",coactivation_lift,"), of(",expert_path,"), of(",gini,")]
    };
    let [lift, paths, gini] = pairs(&["--metric", "coactivation_lift", "--metric", "gini"]);
    assert!(lift <= 6 * 10 && (paths, gini) == (0, 6), "{lift} {paths} {gini}");
    let all = ["--metric", "coactivation_lift", "--metric", "gini", "--all-pairs"];
    let [lift, paths, gini] = pairs(&all);
    assert!(lift > 6 * 20 && (paths, gini) == (0, 6), "{lift} {paths} {gini}");
    let [lift, paths, gini] = pairs(&["--all-pairs"]);
    assert!(lift > 6 * 20 && paths > 5 * 32 && gini == 0, "{lift} {paths} {gini}");
    let mut none = moescope();
    none.arg("analyze").arg(&run).args(["--metric", "gini", "--all-pairs"]);
    crate::common::fail(&mut none, &["gini has no pairs of experts", "coactivation_lift"]);
    let listed = stdout(&succeed(moescope().args(["analyze", "--list"])));
    assert!(listed.contains("gini (ratio): Gini coefficient"), "{listed}");
    let mut unknown = moescope();
    unknown.arg("analyze").arg(&run).args(["--metric", "vibes"]);
    crate::common::fail(&mut unknown, &["vibes", "utilisation", "gini"]);
}

#[test]
fn inspect_counts_parameters() {
    let said = stdout(&succeed(moescope().arg("inspect").arg(tiny())));
    for part in ["Gemma4ForCausalLM", "32 experts", "top-4", "experts", "attention", "cache"] {
        assert!(said.contains(part), "{said}");
    }
    let json = stdout(&succeed(moescope().arg("inspect").arg(tiny()).args(["--format", "json"])));
    let json: Value = serde_json::from_str(&json).unwrap();
    let parts: u64 =
        json["parts"].as_array().unwrap().iter().map(|p| p["parameters"].as_u64().unwrap()).sum();
    assert_eq!(json["total_parameters"], parts);
    let csv = stdout(&succeed(moescope().arg("inspect").arg(tiny()).args(["--format", "csv"])));
    assert!(csv.starts_with("quantity,part,dtype,context,value,labels\n"), "{csv}");
}

#[test]
fn devices_lists_the_cpu_and_adapters() {
    let json = stdout(&succeed(moescope().args(["devices", "--format", "json"])));
    let json: Value = serde_json::from_str(&json).unwrap();
    let options: Vec<&str> =
        json.as_array().unwrap().iter().map(|d| d["option"].as_str().unwrap()).collect();
    assert_eq!(options[0], "flex");
    assert!(options.contains(&"wgpu:0"), "tests need a Vulkan driver of any kind: {options:?}");
    assert!(json[1]["limits"]["max_buffer_size"].as_u64().unwrap() > 0);
    let text = stdout(&succeed(moescope().arg("devices")));
    assert!(text.lines().count() >= 3 && text.contains("flex"), "{text}");
}

/// The whole demo on a few prompts: two runs, a comparison, a report.
#[test]
fn demo_writes_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report");
    let mut command = moescope();
    command.args(["demo", "--per-domain", "1"]);
    command.arg("-o").arg(&report).arg("--runs").arg(dir.path().join("runs"));
    let output = succeed(&mut command);
    let said = stdout(&output);
    let findings = said.lines().filter(|line| line.starts_with("- ")).count();
    assert_eq!(findings, 3, "{said}");
    assert!(said.contains("index.html"), "{said}");
    let html = std::fs::read_to_string(report.join("index.html")).unwrap();
    assert!(html.contains("<svg") && report.join("report.md").is_file());
    assert!(!html.contains("src=\"http") && !html.contains("href=\"http"), "works from disk");
    // Again, over what is there.
    succeed(&mut command);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let script = format!("{} devices | true", env!("CARGO_BIN_EXE_moescope"));
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
}
