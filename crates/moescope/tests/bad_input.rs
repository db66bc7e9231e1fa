//! Every bad input ends with exit code 2 and an error that names the thing.

use std::{fs, path::Path};

use serde_json::json;

use crate::common::{fail, moescope, prompts, run_command, succeed, tiny};

fn short(dir: &Path) -> std::path::PathBuf {
    prompts(dir, &[json!({"id": "a", "domain": "test", "text": "The router."})])
}

#[test]
fn models() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    let run = |model: &Path, says: &[&str]| {
        let mut command = moescope();
        command.arg("run").arg(model).arg("--prompts").arg(short(dir.path()));
        fail(command.arg("-o").arg(&output).args(["--device", "flex"]), says);
        assert!(!output.exists(), "nothing is written before everything is checked");
    };
    run(Path::new("/no/such/model"), &["/no/such/model", "not found"]);

    let copy = dir.path().join("model");
    let fresh = || {
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(tiny()).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
        }
    };
    let config = |edit: &dyn Fn(&mut serde_json::Value)| {
        let path = copy.join("config.json");
        let mut json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut json);
        fs::write(path, json.to_string()).unwrap();
    };
    fresh();
    config(&|c| c["architectures"] = json!(["NoSuchForCausalLM"]));
    run(&copy, &["NoSuchForCausalLM", "Gemma4ForCausalLM"]);
    fresh();
    config(&|c| c["router_jitter"] = json!(0.5));
    run(&copy, &["router_jitter", "0.5", "not implemented"]);
    fresh();
    config(&|c| c["moe_intermediate_size"] = json!(63));
    run(&copy, &["gate_up_proj", "[32, 126, 128]", "[32, 128, 128]"]);
    fresh();
    let weights = copy.join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    run(&copy, &["model.safetensors", "truncated"]);
    fresh();
    let mut damaged = bytes.clone();
    let end = damaged.len();
    damaged[end - 2..].copy_from_slice(&half_nan());
    fs::write(&weights, damaged).unwrap();
    run(&copy, &["tensor", "NaN"]);
    fresh();
    fs::write(copy.join("tokenizer.json"), "{}").unwrap();
    run(&copy, &["tokenizer.json", "not a tokenizer"]);
}

/// A bfloat16 NaN.
fn half_nan() -> [u8; 2] {
    0x7fc0u16.to_le_bytes()
}

#[test]
fn prompt_sets() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    let check = |record: serde_json::Value, says: &[&str]| {
        let prompts = prompts(dir.path(), &[record]);
        fail(&mut run_command(&prompts, &output), says);
        assert!(!output.exists());
    };
    check(json!({"id": "far", "token_ids": [5, 4096]}), &["\"far\"", "4096", "4096 tokens"]);
    check(json!({"id": "none", "text": ""}), &["prompts.jsonl:1", "empty"]);
    check(json!({"id": "none", "token_ids": []}), &["prompts.jsonl:1", "empty"]);
    check(json!({"id": "bad", "txt": "?"}), &["prompts.jsonl:1", "txt"]);
    let long: Vec<u32> = (0..4090).map(|i| 10 + i % 4000).collect();
    check(json!({"id": "long", "token_ids": long}), &["\"long\"", "4090", "4096", "--max-tokens"]);

    fail(&mut run_command(Path::new("/no/prompts.jsonl"), &output), &["/no/prompts.jsonl"]);
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    fail(&mut run_command(&empty, &output), &["no prompts", ".jsonl"]);
    fs::write(dir.path().join("broken.jsonl"), "{\"text\": \"a\"}\n{oops").unwrap();
    fail(&mut run_command(&dir.path().join("broken.jsonl"), &output), &["broken.jsonl:2"]);
}

#[test]
fn options() {
    let dir = tempfile::tempdir().unwrap();
    let prompts = short(dir.path());
    let output = dir.path().join("run");
    for (option, value, says) in [
        ("--device", "tpu", "auto, flex, wgpu"),
        ("--device", "wgpu:99", "wgpu:99"),
        ("--dtype", "int4", "f32, f16 or bf16"),
        ("--moe-impl", "magic", "selected, dense"),
        ("--temperature", "-1", "at least 0"),
        ("--top-p", "0", "above 0"),
    ] {
        let mut command = moescope();
        command.arg("run").arg(tiny()).arg("--prompts").arg(&prompts).arg("-o").arg(&output);
        fail(command.arg(format!("{option}={value}")), &[says]);
    }
}

#[test]
fn outputs() {
    let dir = tempfile::tempdir().unwrap();
    let prompts = short(dir.path());
    let output = dir.path().join("run");
    succeed(run_command(&prompts, &output).args(["--max-tokens", "0"]));
    fail(&mut run_command(&prompts, &output), &["run", "exists", "--force"]);
    succeed(run_command(&prompts, &output).args(["--max-tokens", "0", "--force"]));

    // Somebody's files are not ours to delete, --force or not.
    let precious = dir.path().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("thesis.tex"), "years of work").unwrap();
    fail(run_command(&prompts, &precious).arg("--force"), &["precious"]);
    assert!(precious.join("thesis.tex").exists());

    // Below a file nothing can be made, whoever asks; /proc refuses everybody too.
    let below = dir.path().join("prompts.jsonl/run");
    fail(&mut run_command(&prompts, &below), &["prompts.jsonl/run"]);
    fail(&mut run_command(&prompts, Path::new("/proc/moescope-run")), &["/proc/moescope-run"]);
}

#[test]
fn run_directories() {
    let dir = tempfile::tempdir().unwrap();
    let prompts = short(dir.path());
    let output = dir.path().join("run");
    succeed(run_command(&prompts, &output).args(["--max-tokens", "2"]));
    let report = |says: &[&str]| {
        let mut command = moescope();
        fail(command.arg("report").arg(&output).arg("-o").arg(dir.path().join("report")), says);
    };
    let manifest = output.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"schema_version\": 1", "\"schema_version\": 99")).unwrap();
    report(&["manifest.json", "99"]);
    fs::write(&manifest, "{").unwrap();
    report(&["manifest.json"]);
    fs::write(&manifest, &text).unwrap();
    let part = output.join("routing/part-00000.parquet");
    let bytes = fs::read(&part).unwrap();
    fs::write(&part, &bytes[..bytes.len() / 2]).unwrap();
    report(&["part-00000.parquet"]);
    fs::remove_file(&manifest).unwrap();
    report(&["run"]);
}

/// A device that takes no more bytes: a file system of 256 KiB, where the machine lets one be mounted.
#[test]
fn full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    fs::create_dir(&small).unwrap();
    let prompts = crate::common::datasets().join("prompts");
    // In a mount namespace of its own, so that nothing is left behind whatever happens.
    let script = format!(
        "mount -t tmpfs -o size=256k tmpfs {0} && exec {1} run {2} --prompts {3} --max-tokens 0 \
         --device flex -o {0}/run",
        small.display(),
        env!("CARGO_BIN_EXE_moescope"),
        tiny().display(),
        prompts.display(),
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", &script]);
    fail(&mut command, &["small/run", "space"]);
}
