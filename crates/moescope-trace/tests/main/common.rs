//! Small runs with known content.

use std::path::{Path, PathBuf};

use moescope_trace::fingerprint::MachineState;
use moescope_trace::manifest::*;
use moescope_trace::{
    LayerColumns, Phase, RoutingColumns, RunWriter, SCHEMA_VERSION, StepColumns, TokenColumns,
};
use tempfile::TempDir;

/// MoE layers of the model in these tests: not from 0 and not neighbours, as in real models.
pub(crate) const MOE_LAYERS: [u16; 2] = [1, 3];
pub(crate) const EXPERTS: u16 = 8;
pub(crate) const TOP_K: usize = 2;

/// A directory for one test and the path of a run in it that does not exist yet.
pub(crate) fn scratch() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let run = dir.path().join("run");
    (dir, run)
}

pub(crate) fn manifest() -> Manifest {
    Manifest {
        schema_version: SCHEMA_VERSION,
        run_id: "test".into(),
        created_at: "2026-01-02T03:04:05Z".into(),
        status: Status::Complete,
        moescope_version: "0.1.0".into(),
        git_commit: None,
        command: vec!["moescope".into(), "run".into()],
        model: ModelInfo {
            name: "tiny".into(),
            source: "tiny".into(),
            architecture: "Gemma4ForCausalLM".into(),
            config_hash: "c".into(),
            weights_hash: "w".into(),
            dtype: "f32".into(),
            quantisation: None,
            total_parameters: 1000,
            active_parameters: 100,
            bytes: 4000,
            weights: Weights::Trained,
            layers_kept: None,
            rumour: false,
            injected: None,
        },
        moe: MoeShape {
            layers: MOE_LAYERS
                .iter()
                .map(|layer| MoeLayer {
                    layer: *layer,
                    experts: EXPERTS,
                    top_k: TOP_K as u16,
                    shared_experts: 0,
                })
                .collect(),
        },
        device: DeviceInfo {
            backend: "flex".into(),
            adapter: "cpu".into(),
            driver: None,
            driver_version: None,
            vendor_id: None,
            device_id: None,
            device_type: DeviceType::Cpu,
            limits: Default::default(),
        },
        host: HostInfo {
            cpu: "cpu".into(),
            cores: 2,
            threads: Some(2),
            ram_bytes: 1 << 33,
            os: "Linux".into(),
        },
        state: MachineState {
            cpu_governor: Some("performance".into()),
            load_average: Some([0.5, 0.25, 0.125]),
            ..MachineState::default()
        },
        settings: Settings {
            batch: 1,
            seed: 42,
            sampling: SamplingInfo { temperature: 0.0, top_k: 0, top_p: 1.0 },
            max_tokens: 4,
            moe_impl: "sparse".into(),
            timing_mode: TimingMode::EndToEnd,
            saliency: false,
        },
        prompts_hash: "p".into(),
        sequences: 1,
    }
}

/// `count` tokens of sequence `sequence` from position `first`.
pub(crate) fn tokens(sequence: u32, first: u32, count: u32) -> TokenColumns {
    let positions: Vec<u32> = (first..first + count).collect();
    TokenColumns {
        sequence: vec![sequence; count as usize],
        step: positions.clone(),
        phase: positions
            .iter()
            .map(|position| if *position < 2 { Phase::Prefill } else { Phase::Decode })
            .collect(),
        token_id: positions.iter().map(|position| 100 + position).collect(),
        text: positions.iter().map(|position| format!("token {position}")).collect(),
        domain: vec![format!("domain-{}", sequence % 2); count as usize],
        logprob: positions
            .iter()
            .map(|position| (*position > 0).then_some(-0.5 * *position as f32))
            .collect(),
        position: positions,
    }
}

/// Routing of the same tokens over [`MOE_LAYERS`].
pub(crate) fn routing(sequence: u32, first: u32, count: u32) -> RoutingColumns {
    let mut columns = RoutingColumns { top_k: TOP_K, ..Default::default() };
    for layer in MOE_LAYERS {
        for position in first..first + count {
            columns.sequence.push(sequence);
            columns.position.push(position);
            columns.layer.push(layer);
            let expert = (position as u16 + layer) % EXPERTS;
            columns.experts.extend([expert, (expert + 1) % EXPERTS]);
            columns.weights.extend([0.75, 0.25]);
            columns.entropy.push(1.5);
            columns.margin.push(0.125);
        }
    }
    columns
}

pub(crate) fn steps(first: u32, count: u32) -> StepColumns {
    let mut columns = StepColumns::default();
    for step in first..first + count {
        columns.step.push(step);
        columns.phase.push(if step == 0 { Phase::Prefill } else { Phase::Decode });
        columns.batch.push(1);
        columns.tokens.push(1);
        columns.context.push(step);
        columns.duration_ns.push(1_000_000 + u64::from(step));
        columns.device_ns.push((step % 2 == 0).then_some(900_000));
        columns.bytes_in_use.push(Some(u64::MAX));
        columns.bytes_reserved.push(None);
        columns.rss_bytes.push(Some(1 << 40));
    }
    columns
}

pub(crate) fn layers() -> LayerColumns {
    LayerColumns {
        step: vec![0, 0, 0],
        layer: vec![0, 0, u16::MAX],
        component: vec!["attention", "experts", "head"],
        duration_ns: vec![10, 20, 30],
    }
}

/// A complete run of one sequence of four tokens.
pub(crate) fn small_run(dir: &Path) {
    let mut writer = RunWriter::create(dir, manifest(), false).unwrap();
    writer.write_tokens(&tokens(0, 0, 4)).unwrap();
    writer.write_routing(&routing(0, 0, 4)).unwrap();
    writer.write_steps(&steps(0, 4)).unwrap();
    writer.finish().unwrap();
}

/// Names in a directory, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
