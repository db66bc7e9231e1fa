//! Models without their weights, and models cut to their first layers.

use std::path::Path;

use moescope_trace::{Run, manifest::Weights};
use serde_json::{Value, json};

use crate::common::{fail, moescope, prompts, run_command, stderr, stdout, succeed, tiny};

fn ids(dir: &Path, count: u32) -> std::path::PathBuf {
    let ids: Vec<u32> = (0..count).map(|i| 7 + 31 * i % 4000).collect();
    prompts(dir, &[json!({"id": "a", "domain": "d", "token_ids": ids})])
}

fn random(model: &Path, prompts: &Path, output: &Path) -> std::process::Command {
    let mut command = moescope();
    command.arg("run").arg(model).arg("--random-weights").arg("--prompts").arg(prompts);
    command.arg("-o").arg(output).args(["--device", "flex", "--max-tokens", "4", "--force"]);
    command
}

/// The slice of the README: two layers of a 26-billion-parameter model, as wide as they are.
#[test]
fn a_slice_of_a_large_model_runs_from_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let (prompts, output) = (ids(dir.path(), 6), dir.path().join("run"));
    let mut command = random(Path::new("gemma-4-26b-a4b"), &prompts, &output);
    let done = succeed(command.args(["--layers", "2", "--dtype", "bf16"]));
    for said in [stdout(&done), stderr(&done)] {
        assert!(said.contains("random weights") && said.contains("first 2 of 30 layers"), "{said}");
    }
    let run = Run::open(&output).unwrap();
    let model = &run.manifest().model;
    let kept = model.layers_kept.unwrap();
    assert_eq!((model.weights, kept.kept, kept.of), (Weights::Random, 2, 30));
    // Embedding 738,197,504 and two layers of 128 experts.
    assert!((2.3e9..2.5e9).contains(&(model.total_parameters as f64)), "{model:?}");
    let tables = run.read().unwrap();
    assert_eq!(tables.tokens.rows(), 10);
    assert_eq!(tables.routing.rows(), 2 * 10);
    assert!(tables.tokens.logprob.iter().flatten().all(|p| p.is_finite()));

    let mut analyze = moescope();
    let table = stdout(&succeed(analyze.arg("analyze").arg(&output).args(["--metric", "gini"])));
    let labels = "random weights, first layers only";
    assert!(table.contains(labels), "{table}");
    // Wherever numbers of the run are printed.
    let printed = |arguments: &[&str]| {
        let mut command = moescope();
        command.arg(arguments[0]).arg(&output);
        if matches!(arguments[0], "compare" | "gate") {
            command.arg(&output);
        }
        stdout(&succeed(command.args(&arguments[1..])))
    };
    for arguments in
        [&["analyze"][..], &["simulate"], &["compare"], &["compare", "--format", "md"], &["gate"]]
    {
        assert!(printed(arguments).contains(labels), "{arguments:?}");
    }
    let json = printed(&["simulate", "--format", "json"]);
    assert!(
        json.contains("\"random weights\"") && json.contains("\"first layers only\""),
        "{json}"
    );
    let json = printed(&["analyze", "--format", "json"]);
    let rows: Value = serde_json::from_str(&json).unwrap();
    for row in rows.as_array().unwrap() {
        assert!(row["run"].as_str().unwrap().contains(labels), "{row}");
    }
    let parquet = dir.path().join("metrics.parquet");
    printed(&["analyze", "--format", "parquet", "-o", parquet.to_str().unwrap()]);
    // The file ends with the least and the greatest value of every column, as they are.
    let bytes = std::fs::read(parquet).unwrap();
    assert!(bytes.windows(labels.len()).any(|window| window == labels.as_bytes()));
    let csv = printed(&["analyze", "--format", "csv"]);
    assert!(csv.lines().skip(1).all(|line| line.contains("random weights")), "{csv}");
    for format in ["simulate", "compare"].map(|command| printed(&[command, "--format", "csv"])) {
        assert!(format.lines().skip(1).all(|line| line.contains("random weights")), "{format}");
    }
    let report = dir.path().join("report");
    let mut command = moescope();
    succeed(command.arg("report").arg(&output).arg("-o").arg(&report));
    for file in ["index.html", "report.md"] {
        let text = std::fs::read_to_string(report.join(file)).unwrap();
        for part in ["random weights", "first layers only", "the first 2 of 30, at true width"] {
            assert!(text.contains(part), "{file} does not say {part:?}");
        }
    }
}

/// Any config.json will do; the seed decides the weights, the number of threads does not.
#[test]
fn a_seed_fixes_random_weights() {
    let dir = tempfile::tempdir().unwrap();
    let prompts = ids(dir.path(), 20);
    let record = |name: &str, seed: &str, threads: &str| {
        let output = dir.path().join(name);
        let mut command = random(&tiny().join("config.json"), &prompts, &output);
        succeed(command.args(["--seed", seed]).env("RAYON_NUM_THREADS", threads));
        let run = Run::open(&output).unwrap();
        let hash = run.manifest().model.weights_hash.clone();
        (hash, run.read().unwrap())
    };
    let (hash, first) = record("1", "3", "1");
    let (again_hash, again) = record("2", "3", "3");
    let (other_hash, other) = record("3", "4", "2");
    assert_eq!(hash, again_hash);
    assert_eq!(first.routing.experts, again.routing.experts);
    assert_eq!(first.tokens.token_id, again.tokens.token_id);
    assert_ne!(hash, other_hash);
    assert_ne!(first.routing.experts, other.routing.experts);
}

/// Random routers spread tokens nearly evenly, and nothing overflows on the way through all layers.
#[test]
fn random_activations_stay_in_range() {
    let dir = tempfile::tempdir().unwrap();
    let (prompts, output) = (ids(dir.path(), 200), dir.path().join("run"));
    for dtype in ["f32", "bf16", "f16"] {
        succeed(random(&tiny(), &prompts, &output).args(["--dtype", dtype]));
        let tables = Run::open(&output).unwrap().read().unwrap();
        let entropy = tables.routing.entropy.unwrap();
        let mean = entropy.iter().map(|&e| f64::from(e)).sum::<f64>() / entropy.len() as f64;
        let even = 32f64.ln();
        assert!(mean > 0.7 * even && mean < even, "{dtype}: {mean} nats of {even}");
        let mut used = std::collections::BTreeSet::new();
        used.extend(tables.routing.experts.iter().copied());
        assert!(used.len() >= 30, "{dtype}: {} of 32 experts used", used.len());
    }
}

/// Texts need no tokenizer where weights mean nothing either.
#[test]
fn texts_become_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let text = json!({"id": "a", "domain": "d", "text": "Zwölf"});
    let (prompts, output) = (prompts(dir.path(), &[text]), dir.path().join("run"));
    let config = dir.path().join("config.json");
    std::fs::copy(tiny().join("config.json"), &config).unwrap();
    let done = succeed(&mut random(&config, &prompts, &output));
    assert!(stderr(&done).contains("bytes"), "{}", stderr(&done));
    let tokens = Run::open(&output).unwrap().read().unwrap().tokens;
    assert_eq!(tokens.token_id[..6], [90, 119, 0xc3, 0xb6, 108, 102]);
}

/// The first layers of a trained model route as they do in the whole of it.
#[test]
fn first_layers_of_a_checkpoint_are_its_first_layers() {
    let dir = tempfile::tempdir().unwrap();
    let prompts = ids(dir.path(), 40);
    let record = |name: &str, options: &[&str]| {
        let output = dir.path().join(name);
        succeed(run_command(&prompts, &output).args(["--max-tokens", "0"]).args(options));
        let run = Run::open(&output).unwrap();
        let manifest = run.manifest().clone();
        (manifest, run.read().unwrap().routing)
    };
    let (whole_manifest, whole) = record("whole", &[]);
    let (manifest, cut) = record("cut", &["--layers", "3"]);
    assert_eq!(whole_manifest.model.layers_kept, None);
    assert_eq!(manifest.model.layers_kept.map(|l| (l.kept, l.of)), Some((3, 6)));
    assert_eq!(manifest.model.weights, Weights::Trained);
    let first: Vec<usize> = (0..whole.rows()).filter(|&row| whole.layer[row] < 3).collect();
    assert_eq!(first.len(), cut.rows());
    for (row, &of) in first.iter().enumerate() {
        assert_eq!(cut.experts_of(row), whole.experts_of(of), "row {row}");
    }
    let (all, _) = record("all", &["--layers", "6"]);
    assert_eq!(all.model.layers_kept, None);
}

#[test]
fn what_can_not_be_cut_or_found() {
    let dir = tempfile::tempdir().unwrap();
    let (prompts, output) = (ids(dir.path(), 4), dir.path().join("run"));
    fail(run_command(&prompts, &output).args(["--layers", "7"]), &["--layers 7", "6 layers"]);
    fail(run_command(&prompts, &output).args(["--layers", "0"]), &["--layers 0", "1 to 6"]);
    let without = |model: &str, says: &[&str]| {
        let mut command = moescope();
        command.arg("run").arg(model).arg("--prompts").arg(&prompts).arg("-o").arg(&output);
        fail(command.args(["--device", "flex"]), says);
    };
    without("gemma-4-120b-a15b", &["gemma-4-120b-a15b", "--random-weights"]);
    let mut unknown = random(Path::new("gemma-5"), &prompts, &output);
    fail(&mut unknown, &["gemma-5", "not found"]);
    assert!(!output.exists());
}

/// A rumour is called one wherever its numbers are printed, and so are first layers.
#[test]
fn inspect_labels_what_it_counts() {
    for format in ["text", "json", "csv"] {
        let inspect = |model: &str| {
            let mut command = moescope();
            command.args(["inspect", model, "--layers", "4", "--format", format]);
            stdout(&succeed(&mut command))
        };
        let rumour = inspect("gemma-4-120b-a15b");
        assert!(rumour.contains("rumoured shapes") && rumour.contains("first 4 of"), "{rumour}");
        let published = inspect("gemma-4-26b-a4b");
        assert!(!published.contains("rumour") && published.contains("first 4 of"), "{published}");
    }
}

/// Sizes that overflow are refused, not computed with.
#[test]
fn hostile_configs() {
    let dir = tempfile::tempdir().unwrap();
    let (prompts, output) = (ids(dir.path(), 4), dir.path().join("run"));
    let text = std::fs::read_to_string(tiny().join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    let huge = u64::MAX / 2;
    for key in ["hidden_size", "vocab_size", "moe_intermediate_size", "num_hidden_layers"] {
        let mut config = config.clone();
        config[key] = json!(huge);
        let path = dir.path().join("config.json");
        std::fs::write(&path, config.to_string()).unwrap();
        fail(&mut random(&path, &prompts, &output), &["config.json"]);
        let mut inspect = moescope();
        fail(inspect.arg("inspect").arg(&path), &["config.json"]);
    }
    assert!(!output.exists());
}
