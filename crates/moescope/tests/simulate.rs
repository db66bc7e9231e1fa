//! `simulate` on a run of the bundled model.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::{fail, moescope, prompts, run_command, stderr, stdout, succeed};

/// A run of six prompts, continued.
fn recorded(dir: &Path) -> PathBuf {
    let record = |n: usize| {
        let text =
            format!("The {n} rivers of the north run to the sea, and the sea is never full.");
        json!({"id": format!("{n}"), "domain": "x", "text": text})
    };
    let prompts = prompts(dir, &(0..6).map(record).collect::<Vec<_>>());
    let run = dir.join("run");
    succeed(run_command(&prompts, &run).args(["--max-tokens", "20"]));
    run
}

#[test]
fn answers_for_a_small_gpu() {
    let dir = tempfile::tempdir().unwrap();
    let run = recorded(dir.path());
    let simulate =
        |options: &[&str]| stdout(&succeed(moescope().arg("simulate").arg(&run).args(options)));
    // The bundled model has 24 MB: half of it does not hold all experts.
    let options =
        ["--vram", "14MB", "--link", "1GB/s", "--host-bandwidth", "10GB/s", "--target", "50"];
    let text = simulate(&options);
    for part in [
        "192 experts in 6 MoE layers",
        "120 generated tokens",
        "predicted, not measured",
        "LRU, warmed by the prompt",
        "bound",
        "break-even",
        "a cache beats running the experts on the host",
        "next-layer prefetch, experts brought per layer",
        "tokens/s take a hit rate",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let document: Value =
        serde_json::from_str(&simulate(&[&options[..], &["--format", "json"]].concat())).unwrap();
    let predicted = &document["predicted"];
    let of = |value: &Value| value.as_f64().unwrap();
    assert!(of(&predicted["predicted_without_hits"]) < of(&predicted["predicted_without_misses"]));
    let fitting = predicted["experts_that_fit"].as_u64().unwrap();
    assert!((1..192).contains(&fitting), "{fitting}");
    let caches = document["caches"].as_array().unwrap();
    // Every size of five policies, in the layers' own caches and in a shared one.
    assert_eq!(caches.len(), 5 * 32 + 5 * 32);
    // The link is slower than the host's memory, but not all experts miss.
    let host = of(&predicted["hit_rate_to_beat_host"]);
    assert!(0.0 < host && host < 1.0, "{host}");
    let prefetch = document["prefetch"].as_array().unwrap();
    assert_eq!(prefetch.len(), 32);
    assert_eq!(of(&prefetch[31]["hit_rate"]), 1.0);
    assert_eq!(of(&prefetch[31]["wasted"]), 1.0 - 4.0 / 32.0);
    let bound = |experts: &Value, shared: bool| {
        let name = if shared { "hit_rate_global_belady" } else { "hit_rate_belady" };
        let found =
            caches.iter().find(|row| row["policy"] == name && &row["experts_cached"] == experts);
        found.map(|row| of(&row["hit_rate"]))
    };
    for row in caches {
        let hit_rate = of(&row["hit_rate"]);
        // A fixed choice is made on one half of the sequences: the other has too few for an interval.
        let fixed = row["policy"].as_str().unwrap().ends_with("static");
        assert_eq!(row["low"].is_null(), fixed, "{row}");
        if !fixed {
            assert!(of(&row["low"]) <= hit_rate && hit_rate <= of(&row["high"]), "{row}");
            assert!(of(&row["predicted_low"]) <= of(&row["predicted_tokens_per_second"]), "{row}");
        }
        assert_eq!(row["fits"], row["experts_cached"].as_u64().unwrap() <= fitting);
        if let Some(bound) = bound(&row["experts_cached"], row["shared"] == true) {
            assert!(hit_rate <= bound + 1e-9, "{row}");
        }
    }
    let csv = simulate(&[&options[..], &["--format", "csv"]].concat());
    assert_eq!(csv.lines().count(), 1 + caches.len());
    let file = dir.path().join("caches.csv");
    let path = file.to_str().unwrap();
    assert_eq!(simulate(&[&options[..], &["--format", "csv", "-o", path]].concat()), "");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), csv);
    // A GPU that holds it all, and one that holds nothing.
    assert!(simulate(&[]).contains("the whole model fits"));
    assert!(simulate(&["--vram", "1MB"]).contains("not even the dense part fits"));
    assert!(simulate(&["--target", "1e9"]).contains("out of reach"));
}

#[test]
fn places_experts_on_gpus() {
    let dir = tempfile::tempdir().unwrap();
    let run = recorded(dir.path());
    let simulate = || {
        let mut command = moescope();
        command.arg("simulate").arg(&run);
        command
    };
    let options = ["--gpus", "4", "--redundant", "4"];
    let text = stdout(&succeed(simulate().args(options)));
    assert!(text.contains("balanced (EPLB)") && text.contains("4 redundant experts"), "{text}");
    let json = stdout(&succeed(simulate().args(options).args(["--format", "json"])));
    let document: Value = serde_json::from_str(&json).unwrap();
    let placement = &document["placement"];
    for which in ["before", "after"] {
        // Six layers and their mean.
        let found = placement[which].as_array().unwrap();
        assert_eq!(found.len(), 7);
        assert!(found.iter().all(|found| found["max_over_mean"].as_f64().unwrap() >= 1.0));
    }
    fail(simulate().args(["--gpus", "5"]), &["layer", "32 experts", "5 GPUs", "use 3 redundant"]);
    fail(simulate().args(["--gpus", "0"]), &["GPUs", "found 0"]);
    fail(simulate().args(["--redundant", "4"]), &["--gpus"]);
}

#[test]
fn says_what_it_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let run = recorded(dir.path());
    for (option, value) in [("--vram", "8G"), ("--link", "0GB/s"), ("--latency", "soon")] {
        fail(
            moescope().arg("simulate").arg(&run).args([option, value]),
            &[option, value, "expected"],
        );
    }
    fail(moescope().arg("simulate").arg(dir.path().join("none")), &["none"]);
    // A run that does not know its model's size: hit rates all the same.
    let path = run.join("manifest.json");
    let mut manifest: Value =
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    manifest["model"]["total_parameters"] = json!(0);
    manifest["model"]["active_parameters"] = json!(0);
    std::fs::write(&path, manifest.to_string()).unwrap();
    let output = succeed(moescope().arg("simulate").arg(&run));
    assert!(stderr(&output).contains("--expert-bytes"), "{}", stderr(&output));
    assert!(stdout(&output).contains("LRU") && !stdout(&output).contains("tokens/s"));
    let bytes = ["--expert-bytes", "100kB", "--dense-bytes", "1MB", "--vram", "5MB"];
    let said = stdout(&succeed(moescope().arg("simulate").arg(&run).args(bytes)));
    assert!(said.contains("experts that fit beside the dense part: 40 of 192"), "{said}");
}
