//! `run --saliency`: recorded norms of experts' outputs against what must hold of them.

use std::path::Path;

use moescope_trace::{RoutingFields, RoutingTable, Run};
use serde_json::{Value, json};

use crate::common::{fail, moescope, prompts, run_command, stderr, stdout, succeed, tiny};

/// The routing of a run over one prompt, with norms.
fn routing(model: &Path, dir: &Path, name: &str, options: &[&str]) -> RoutingTable {
    let text = "The river runs to the sea, and fn main() returns 42.";
    let prompts = prompts(dir, &[json!({"id": "a", "domain": "x", "text": text})]);
    let run = dir.join(name);
    let mut command = moescope();
    command.arg("run").arg(model).arg("--prompts").arg(&prompts).arg("-o").arg(&run);
    succeed(command.args(["--device", "flex", "--max-tokens", "0", "--saliency"]).args(options));
    Run::open(&run).unwrap().read_routing_with(RoutingFields::ALL).unwrap()
}

/// Copies the bundled model with the down projection of one expert doubled.
fn doubled(dir: &Path, layer: u16, expert: usize) {
    for entry in std::fs::read_dir(tiny()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
        }
    }
    let path = dir.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let wanted = format!("layers.{layer}.experts.down_proj");
    let (_, tensor) =
        tensors.as_object().unwrap().iter().find(|(name, _)| name.contains(&wanted)).unwrap();
    let offset = |at: usize| tensor["data_offsets"][at].as_u64().unwrap() as usize + 8 + header;
    let experts = tensor["shape"][0].as_u64().unwrap() as usize;
    let size = (offset(1) - offset(0)) / experts;
    let part = &mut bytes[offset(0) + expert * size..offset(0) + (expert + 1) * size];
    // Doubling is exact in every float type.
    match tensor["dtype"].as_str().unwrap() {
        "BF16" => part.chunks_exact_mut(2).for_each(|value| {
            let wide = f32::from_bits(u32::from(u16::from_le_bytes([value[0], value[1]])) << 16);
            let half = ((wide * 2.0).to_bits() >> 16) as u16;
            value.copy_from_slice(&half.to_le_bytes());
        }),
        "F32" => part.chunks_exact_mut(4).for_each(|value| {
            let wide = f32::from_le_bytes(value.try_into().unwrap()) * 2.0;
            value.copy_from_slice(&wide.to_le_bytes());
        }),
        other => panic!("{other}: not a type this test can double"),
    }
    std::fs::write(&path, bytes).unwrap();
}

fn close(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-3 * b.abs()
}

#[test]
fn norms_follow_the_weights_of_the_experts() {
    let dir = tempfile::tempdir().unwrap();
    let plain = routing(&tiny(), dir.path(), "plain", &[]);
    let norms = plain.output_norms.as_ref().unwrap();
    assert_eq!(norms.len(), plain.experts.len());
    assert!(norms.iter().all(|norm| norm.is_finite() && *norm > 0.0));
    // Computed through all experts, another way, they are the same.
    let dense = routing(&tiny(), dir.path(), "dense", &["--moe-impl", "dense"]);
    assert_eq!(plain.experts, dense.experts);
    assert!(norms.iter().zip(dense.output_norms.as_ref().unwrap()).all(|(a, b)| close(*b, *a)));

    // Twice the down projection of an expert in the last layer: twice its norms, and nothing else.
    let last = *plain.layer.iter().max().unwrap();
    let row = (0..plain.rows()).find(|&row| plain.layer[row] == last).unwrap();
    let expert = plain.experts_of(row)[0];
    let copy = dir.path().join("doubled");
    std::fs::create_dir(&copy).unwrap();
    doubled(&copy, last, usize::from(expert));
    let twice = routing(&copy, dir.path(), "twice", &[]);
    assert_eq!(plain.experts, twice.experts);
    let mut changed = 0;
    for row in 0..plain.rows() {
        let ids = plain.experts_of(row);
        let pairs =
            plain.output_norms_of(row).unwrap().iter().zip(twice.output_norms_of(row).unwrap());
        for (id, (before, after)) in ids.iter().zip(pairs) {
            let factor = if plain.layer[row] == last && *id == expert { 2.0 } else { 1.0 };
            changed += usize::from(factor == 2.0);
            assert!(close(*after, before * factor), "row {row}, expert {id}: {before} {after}");
        }
    }
    assert!(changed > 0);
}

#[test]
fn saliency_is_analysed_where_it_was_recorded() {
    let dir = tempfile::tempdir().unwrap();
    routing(&tiny(), dir.path(), "with", &[]);
    let run = dir.path().join("with");
    let options = ["--metric", "saliency_reap", "--format", "csv"];
    let csv = stdout(&succeed(moescope().arg("analyze").arg(&run).args(options)));
    assert_eq!(csv.lines().count(), 1 + 6 * 32, "{csv}");
    assert!(Run::open(&run).unwrap().manifest().settings.saliency);
    // A run without says how to have them, and so does one from before manifests said it.
    let text = [json!({"id": "a", "domain": "x", "text": "No norms."})];
    let prompts = prompts(dir.path(), &text);
    let run = dir.path().join("without");
    succeed(run_command(&prompts, &run).args(["--max-tokens", "0"]));
    assert!(!Run::open(&run).unwrap().manifest().settings.saliency);
    let manifest = std::fs::read_to_string(run.join("manifest.json")).unwrap();
    assert!(!manifest.contains("saliency"), "as old runs have it: {manifest}");
    let output = succeed(moescope().arg("analyze").arg(&run).args(options));
    let expected = "saliency_reap: not recorded: expert output norms (run with --saliency)";
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    let mut absent = moescope();
    fail(absent.arg("run").arg(tiny()).arg("--saliency"), &["--prompts"]);
}
