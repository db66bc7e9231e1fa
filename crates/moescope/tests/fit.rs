//! What fits, what does not, and what `inspect` says of it.

use std::{fs, path::Path};

use moescope_trace::Run;
use serde_json::{Value, json};

use crate::{
    common::{fail, moescope, prompts, run_command, stdout, succeed, tiny},
    hub_server::Hub,
};

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

/// What does not fit is known from the config: not a byte of its weights is fetched.
#[test]
fn weights_of_the_hub_that_do_not_fit_are_not_fetched() {
    let hub = Hub::of(&tiny());
    let dir = tempfile::tempdir().unwrap();
    let (prompts, output) = (short(dir.path()), dir.path().join("run"));
    let asking = |command: &str| {
        let mut asking = moescope();
        asking.args([command, "org/name", "--device", "flex", "--memory-limit"]);
        for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"] {
            asking.env_remove(name);
        }
        asking.env("HF_ENDPOINT", &hub.endpoint).env("HF_HOME", dir.path().join("hf"));
        asking
    };
    let run = |limit: &str| {
        let mut run = asking("run");
        run.arg(limit).arg("--prompts").arg(&prompts).arg("-o").arg(&output);
        run
    };
    fail(&mut run("1MiB"), &["does not fit", "1.0 MiB allowed by --memory-limit"]);
    fail(asking("bench").arg("1MiB"), &["does not fit", "1.0 MiB allowed by --memory-limit"]);
    let requests = hub.requests();
    let weights = |path: &str| path.ends_with(".safetensors");
    assert!(requests.iter().any(|request| request.path.ends_with("config.json")), "{requests:?}");
    assert!(requests.iter().all(|request| !request.cdn && !weights(&request.path)), "{requests:?}");
    assert!(!output.exists());
    // What fits is fetched.
    succeed(&mut run("1GiB"));
    assert!(hub.requests().iter().any(|request| request.cdn || weights(&request.path)));
}

/// `inspect` and `run` say the same of a model whose experts are larger than the adapter binds, whatever there is
/// of memory.
#[test]
fn inspect_knows_the_largest_binding() {
    let inspect = |format: &str| {
        let mut command = moescope();
        command.args(["inspect", "mixtral-8x7b", "--device", "wgpu", "--context", "512"]);
        command.args(["--memory-limit", "4000GiB", "--format", format]);
        stdout(&succeed(&mut command))
    };
    let document: Value = serde_json::from_str(&inspect("json")).unwrap();
    let fit = &document["fit"];
    let limit = fit["capacity"]["tensor"].as_u64().unwrap();
    let dtypes = fit["capacity"]["dtypes"].as_array().unwrap();
    // WGSL has no bfloat16.
    assert!(dtypes.contains(&json!("f32")) && !dtypes.contains(&json!("bf16")), "{dtypes:?}");
    let rows = fit["by_dtype"].as_array().unwrap();
    let of_rows: Vec<&Value> = rows.iter().map(|row| &row["dtype"]).collect();
    assert_eq!(of_rows, dtypes.iter().collect::<Vec<_>>());
    let text = inspect("text");
    for row in rows {
        // Gate and up projection of an expert.
        let bytes = if row["dtype"] == "f32" { 4 } else { 2 };
        let expert = 2 * 14_336 * 4096 * bytes;
        if expert > limit {
            assert_eq!((&row["layers"], &row["context"]), (&json!(0), &json!(0)), "{row}");
            assert_eq!(row["too_large"]["bytes"], json!(expert), "{row}");
            let name = row["dtype"].as_str().unwrap();
            assert!(text.contains(&format!("too large in {name}: projections of one")), "{text}");
        } else {
            assert_eq!((&row["layers"], &row["too_large"]), (&json!(32), &Value::Null), "{row}");
        }
    }
    let table = text.split("weights in ").nth(1).unwrap();
    assert!(table.lines().skip(1).take(rows.len()).all(|row| !row.contains("bf16")), "{table}");

    let dir = tempfile::tempdir().unwrap();
    let ids = prompts(dir.path(), &[json!({"id": "a", "domain": "d", "token_ids": [1, 2]})]);
    if 2 * 14_336 * 4096 * 4 > limit {
        let mut run = moescope();
        run.args(["run", "mixtral-8x7b", "--random-weights", "--layers", "1", "--device", "wgpu"]);
        run.args(["--memory-limit", "4000GiB"]).arg("--prompts").arg(ids);
        let says = ["projections of one expert", "448.0 MiB", "binds at most"];
        fail(run.arg("-o").arg(dir.path().join("run")), &says);
    }
}

/// Which parameters a token uses is a convention, and said where it leaves something out.
#[test]
fn inspect_says_what_active_parameters_leave_out() {
    let inspect = |name: &str, format: &str| {
        let mut command = moescope();
        command.args(["inspect", name, "--device", "flex", "--format", format]);
        stdout(&succeed(&mut command))
    };
    for (name, without, tied) in [
        ("gpt-oss-20b", true, false),
        ("qwen3-30b-a3b", false, false),
        ("gemma-4-26b-a4b", false, true),
    ] {
        let text = inspect(name, "text");
        let note = "per token (without the input embedding)";
        assert_eq!(text.contains(note), without, "{name}: {text}");
        assert_eq!(text.contains("head: the embedding"), tied, "{name}: {text}");
        let document: Value = serde_json::from_str(&inspect(name, "json")).unwrap();
        assert_eq!(document["active_without_embedding"], json!(without), "{name}");
        assert_eq!(document["head_is_embedding"], json!(tied), "{name}");
    }
}

/// A line per number, and the same numbers as in JSON.
#[test]
fn inspect_as_csv_has_what_the_document_has() {
    let inspect = |format: &str| {
        let mut command = moescope();
        command.args(["inspect", "qwen3-30b-a3b", "--layers", "4", "--device", "flex"]);
        command.args(["--memory-limit", "24GiB", "--format", format]);
        stdout(&succeed(&mut command))
    };
    let (csv, document) = (inspect("csv"), inspect("json"));
    let document: Value = serde_json::from_str(&document).unwrap();
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("quantity,part,dtype,context,value,labels"));
    assert!(lines.all(|line| line.ends_with(",first 4 of 48 layers")), "{csv}");
    let has = |start: &str, value: &Value| {
        let line = format!("{start},{value},");
        assert!(csv.contains(&line), "{line} in {csv}");
    };
    has("parameters,all,,", &document["total_parameters"]);
    has("active_parameters,all,,", &document["active_parameters"]);
    has("bytes,all,f32,", &document["bytes"]);
    for part in document["parts"].as_array().unwrap() {
        let name = part["part"].as_str().unwrap();
        has(&format!("parameters,{name},,"), &part["parameters"]);
        has(&format!("bytes,{name},bf16,"), &part["bytes_bf16"]);
        has(&format!("bytes,{name},stored,"), &part["bytes_stored"]);
    }
    has("kv_cache_bytes,,f32,40960", &document["kv_cache"]["bytes"]);
    has("kv_cache_bytes_of_a_token,,f32,0", &document["kv_cache"]["bytes_per_token"]);
    for row in document["fit"]["by_dtype"].as_array().unwrap() {
        let dtype = row["dtype"].as_str().unwrap();
        has(&format!("bytes_needed,,{dtype},4096"), &row["needed_bytes"]);
        has(&format!("layers_that_fit,,{dtype},4096"), &row["layers"]);
        has(&format!("longest_context_that_fits,,{dtype},"), &row["context"]);
    }
    assert!(csv.contains("\nbytes_read_per_decoded_token,,bf16,4096,"), "{csv}");
    assert!(csv.contains("\ntokens_per_second_simulated,,f32,0,"), "{csv}");
}
