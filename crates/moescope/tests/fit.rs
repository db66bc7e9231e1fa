//! What fits, what does not, and what `inspect` says of it.

use std::{fs, path::Path};

use moescope_trace::Run;
use serde_json::{Value, json};

use crate::common::{fail, moescope, prompts, run_command, stdout, succeed, tiny};

fn short(dir: &Path) -> std::path::PathBuf {
    prompts(dir, &[json!({"id": "a", "domain": "test", "text": "The router."})])
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (prompts, output) = (short(dir.path()), dir.path().join("run"));
    let mut small = run_command(&prompts, &output);
    let says = ["does not fit", "weights in f32", "16.0 MiB allowed by --memory-limit", "--layers"];
    fail(small.args(["--memory-limit", "16MiB"]), &says);
    assert!(!output.exists());
    // 24 MiB in f32 do not fit, half of it does.
    let mut half = run_command(&prompts, &output);
    fail(half.args(["--memory-limit", "20MiB"]), &["does not fit", "--dtype bf16"]);
    succeed(run_command(&prompts, &output).args(["--memory-limit", "20MiB", "--dtype", "bf16"]));
    fail(
        run_command(&prompts, &output).args(["--memory-limit", "much"]),
        &["--memory-limit", "8GiB"],
    );
}

#[test]
fn a_tokenizer_can_come_from_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let prompts = short(dir.path());
    let bare = dir.path().join("bare");
    fs::create_dir(&bare).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(tiny().join(file), bare.join(file)).unwrap();
    }
    let run = |model: &Path, output: &str, tokenizer: Option<&Path>| {
        let mut command = moescope();
        command.arg("run").arg(model).arg("--prompts").arg(&prompts).args(["--device", "flex"]);
        command.arg("-o").arg(dir.path().join(output));
        command.args(tokenizer.map(|path| [Path::new("--tokenizer"), path]).iter().flatten());
        command
    };
    fail(&mut run(&bare, "none", None), &["tokenizer"]);
    let nowhere = dir.path().join("nowhere");
    fail(&mut run(&bare, "none", Some(&nowhere)), &["nowhere", "not there"]);
    succeed(&mut run(&tiny(), "own", None));
    succeed(&mut run(&bare, "file", Some(&tiny().join("tokenizer.json"))));
    succeed(&mut run(&bare, "dir", Some(&tiny())));
    let hash =
        |name: &str| Run::open(dir.path().join(name)).unwrap().manifest().prompts_hash.clone();
    assert_eq!(hash("own"), hash("file"));
    assert_eq!(hash("own"), hash("dir"));
}

/// Every model of the catalog on a screen of 100 columns, addresses excepted.
#[test]
fn inspect_fits_a_screen() {
    for (name, _) in moescope_model_names() {
        for layers in [None, Some("1")] {
            let mut command = moescope();
            command.args(["inspect", &name, "--device", "flex", "--memory-limit", "24GiB"]);
            let text =
                stdout(&succeed(command.args(layers.map(|n| ["--layers", n]).iter().flatten())));
            for line in text.lines().filter(|line| !line.contains("https://")) {
                assert!(line.chars().count() <= 100, "{name}: {line:?}");
            }
            for part in
                ["embedding", "attention", "norms", "key/value cache", "simulated", "24.0 GiB"]
            {
                assert!(text.contains(part), "{name}: {text}");
            }
        }
    }
}

/// Names and published totals of the catalog.
fn moescope_model_names() -> Vec<(String, Value)> {
    let dir = crate::common::datasets().join("catalog");
    let files = fs::read_dir(dir).unwrap();
    let entry = |path: std::path::PathBuf| {
        let entry: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        (entry["name"].as_str().unwrap().to_owned(), entry)
    };
    files.map(|file| entry(file.unwrap().path())).collect()
}

#[test]
fn inspect_tells_what_it_rests_on() {
    for (name, entry) in moescope_model_names() {
        let inspect = |format: &str| {
            let mut command = moescope();
            command.args(["inspect", &name, "--device", "flex", "--memory-limit", "24GiB"]);
            stdout(&succeed(command.args(["--format", format])))
        };
        let (text, document) = (inspect("text"), inspect("json"));
        let document: Value = serde_json::from_str(&document).unwrap();
        assert_eq!(document["catalog"]["notes"], entry["notes"], "{name}");
        assert_eq!(document["catalog"]["sources"], entry["sources"], "{name}");
        // Wrapped lines have no place for a whole note, addresses do.
        for source in entry["sources"].as_array().unwrap() {
            assert!(text.contains(source["url"].as_str().unwrap()), "{name}: {text}");
        }
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for note in entry["notes"].as_array().unwrap() {
            assert!(flat.contains(note.as_str().unwrap()), "{name}: {text}");
        }
        for key in entry["from_memory"].as_array().unwrap() {
            assert!(flat.contains(key.as_str().unwrap()), "{name}: {text}");
        }
        for number in ["total", "active"] {
            let published = entry["published"][number].as_str().unwrap();
            assert!(flat.contains(published), "{name}: {published} in {text}");
        }
        // Bytes of a part in bf16 are never more than in f32, and parts add up.
        let parts = document["parts"].as_array().unwrap();
        let sum = |key: &str| parts.iter().map(|part| part[key].as_u64().unwrap()).sum::<u64>();
        assert_eq!(sum("bytes_f32"), document["bytes"].as_u64().unwrap(), "{name}");
        assert!(sum("bytes_bf16") < sum("bytes_f32") && sum("bytes_stored") > 0, "{name}");
        // More context is more to read, and fewer tokens per second.
        let reads = document["read_per_decoded_token"]["contexts"].as_array().unwrap();
        let f32s = reads.iter().filter(|read| read["dtype"] == "f32");
        let bytes: Vec<f64> = f32s.map(|read| read["bytes"].as_f64().unwrap()).collect();
        // A model whose longest context is the default one has two columns.
        assert!(bytes.len() >= 2 && bytes.is_sorted_by(|a, b| a < b), "{name}: {bytes:?}");
    }
}
