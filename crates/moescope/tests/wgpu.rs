//! Recording through wgpu: one read per step brings what the CPU brings piece by piece.

use std::path::Path;

use moescope_trace::{Run, RunTables};
use serde_json::json;

use crate::common::{fail, moescope, prompts, succeed};

fn model() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../moescope-model/tests/fixtures/gemma4-moe")
}

fn record(dir: &Path, device: &str) -> RunTables {
    let prompts =
        prompts(dir, &[json!({"id": "a", "domain": "d", "token_ids": [2, 17, 99, 5, 230]})]);
    let output = dir.join(device);
    let mut command = moescope();
    command.arg("run").arg(model()).arg("--prompts").arg(prompts).arg("-o").arg(&output);
    succeed(command.args(["--device", device, "--max-tokens", "2", "--probs"]));
    Run::open(&output).unwrap().read().unwrap()
}

#[test]
fn a_run_on_wgpu_records_what_a_run_on_flex_records() {
    let dir = tempfile::tempdir().unwrap();
    let (cpu, gpu) = (record(dir.path(), "flex"), record(dir.path(), "wgpu"));
    assert_eq!(cpu.tokens.token_id, gpu.tokens.token_id, "greedy tokens");
    assert_eq!(cpu.routing.layer, gpu.routing.layer);
    for (cpu, gpu) in cpu.tokens.logprob.iter().zip(&gpu.tokens.logprob) {
        match (cpu, gpu) {
            (Some(cpu), Some(gpu)) => assert!((cpu - gpu).abs() < 1e-2, "{cpu} {gpu}"),
            both => assert_eq!(both, (&None, &None)),
        }
    }
    let margin = cpu.routing.margin.as_ref().unwrap();
    for (row, margin) in margin.iter().enumerate() {
        // Nearer than this the two may rank either way.
        if *margin > 1e-3 {
            let set = |run: &RunTables| {
                let mut experts = run.routing.experts_of(row).to_vec();
                experts.sort_unstable();
                experts
            };
            assert_eq!(set(&cpu), set(&gpu), "row {row}");
        }
        let entropy = |run: &RunTables| run.routing.entropy.as_ref().unwrap()[row];
        assert!((entropy(&cpu) - entropy(&gpu)).abs() < 1e-2, "row {row}");
    }
    assert!(gpu.steps.bytes_in_use.iter().all(Option::is_some), "Burn's pools report on a GPU");
    assert!(cpu.steps.bytes_in_use.iter().all(Option::is_none), "and not on the CPU");
}

/// Types a device can't compute in are refused with its name.
#[test]
fn unsupported_types_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let prompts = prompts(dir.path(), &[json!({"token_ids": [2]})]);
    let mut command = moescope();
    command
        .arg("run")
        .arg(model())
        .arg("--prompts")
        .arg(prompts)
        .arg("-o")
        .arg(dir.path().join("r"));
    command.args(["--device", "wgpu", "--dtype", "bf16"]);
    // WGSL has no bfloat16, on any GPU.
    fail(&mut command, &["--dtype bf16", "does not support", "f32"]);
}
