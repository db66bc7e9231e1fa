//! The manifest of a run: model, device, host and settings as they were.

use chrono::{SecondsFormat, Utc};
use moescope_model::{Adapter, AdapterType, Checkpoint, DType, ModelSpec, MoeImpl, WeightsSummary};
use moescope_trace::manifest::{
    DeviceInfo, DeviceType, HostInfo, Injected, LayersKept, Manifest, ModelInfo, MoeLayer,
    MoeShape, SCHEMA_VERSION, SamplingInfo, Settings, Status, TimingMode, Weights,
};
use sysinfo::{CpuRefreshKind, System};

use crate::{
    environment::{Card, Roots, machine_state},
    run::{Encoded, RunOptions, prompts_hash},
};

/// What is measured, and by which program.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// Name in tables and legends.
    pub name: &'a str,
    /// The MODEL argument.
    pub source: &'a str,
    /// The checkpoint.
    pub checkpoint: &'a Checkpoint,
    /// What its config says.
    pub spec: &'a ModelSpec,
    /// What was loaded.
    pub weights: &'a WeightsSummary,
    /// Type of the weights.
    pub dtype: DType,
    /// Implementation of the experts layers.
    pub moe_impl: MoeImpl,
    /// What was done to its forward pass, for tests of the gate.
    pub injected: Option<Injected>,
    /// The device.
    pub adapter: &'a Adapter,
    /// Version of the binary.
    pub version: &'a str,
    /// Commit it was built from.
    pub commit: Option<&'a str>,
}

impl Subject<'_> {
    /// The model as results keep it.
    pub fn model_info(&self) -> ModelInfo {
        ModelInfo {
            name: self.name.to_owned(),
            source: self.source.to_owned(),
            architecture: self.spec.architecture.clone(),
            config_hash: self.checkpoint.config_hash(),
            weights_hash: self.weights.hash.clone(),
            dtype: self.dtype.to_string(),
            quantisation: self.checkpoint.quantisation().map(|q| q.to_string()),
            total_parameters: self.spec.total_parameters(),
            active_parameters: self.spec.active_parameters(),
            bytes: self.weights.bytes,
            weights: match self.checkpoint.is_random() {
                true => Weights::Random,
                false => Weights::Trained,
            },
            layers_kept: self
                .checkpoint
                .layers_kept()
                .map(|l| LayersKept { kept: l.kept as u32, of: l.of as u32 }),
            rumour: self.checkpoint.is_rumour(),
            injected: self.injected,
        }
    }

    /// Its MoE layers.
    pub fn moe_shape(&self) -> MoeShape {
        let layers = self.spec.moe.iter().map(|l| MoeLayer {
            layer: l.layer,
            experts: l.experts,
            top_k: l.top_k,
            shared_experts: l.shared_experts,
        });
        MoeShape { layers: layers.collect() }
    }
}

/// What a manifest is made from.
pub struct Conditions<'a> {
    /// What is measured.
    pub subject: Subject<'a>,
    /// The prompts.
    pub prompts: &'a [Encoded],
    /// How the run goes.
    pub options: &'a RunOptions,
    /// The command line.
    pub command: Vec<String>,
}

impl Conditions<'_> {
    /// The manifest of a run that starts now.
    pub fn manifest(self) -> Manifest {
        let now = Utc::now();
        let hash = prompts_hash(self.prompts);
        let (device, roots) = (device_info(self.subject.adapter), Roots::default());
        let card = Card::of(&self.subject.adapter.open(), &device, &roots);
        let id_seed = format!("{now:?} {hash} {}", std::process::id());
        Manifest {
            schema_version: SCHEMA_VERSION,
            run_id: blake3::hash(id_seed.as_bytes()).to_hex()[..16].to_owned(),
            created_at: now.to_rfc3339_opts(SecondsFormat::Secs, true),
            status: Status::Partial,
            moescope_version: self.subject.version.to_owned(),
            git_commit: self.subject.commit.map(str::to_owned),
            command: self.command,
            model: self.subject.model_info(),
            moe: self.subject.moe_shape(),
            state: machine_state(card.as_ref(), &roots),
            device,
            host: host_info(),
            settings: Settings {
                batch: 1,
                seed: self.options.seed,
                sampling: SamplingInfo {
                    temperature: self.options.sampling.temperature,
                    top_k: self.options.sampling.top_k as u32,
                    top_p: self.options.sampling.top_p,
                },
                max_tokens: self.options.max_tokens as u32,
                moe_impl: self.subject.moe_impl.to_string(),
                timing_mode: match self.options.profile {
                    true => TimingMode::Profiled,
                    false => TimingMode::EndToEnd,
                },
                saliency: self.options.keep.output_norms,
            },
            prompts_hash: hash,
            sequences: self.prompts.len() as u32,
        }
    }
}

/// The device as the manifest keeps it.
pub fn device_info(adapter: &Adapter) -> DeviceInfo {
    let cpu = adapter.device_type == AdapterType::Cpu;
    DeviceInfo {
        backend: adapter.backend.to_owned(),
        adapter: if cpu { host_info().cpu } else { adapter.name.clone() },
        driver: adapter.driver.clone(),
        driver_version: adapter.driver_version.clone(),
        vendor_id: adapter.vendor_id,
        device_id: adapter.device_id,
        device_type: match adapter.device_type {
            AdapterType::Cpu => DeviceType::Cpu,
            AdapterType::Integrated => DeviceType::Integrated,
            AdapterType::Discrete => DeviceType::Discrete,
            AdapterType::Software => DeviceType::Software,
            AdapterType::Virtual | AdapterType::Unknown => DeviceType::Unknown,
        },
        limits: adapter.limits.clone(),
    }
}

/// The machine around the device.
pub fn host_info() -> HostInfo {
    // What the system does not tell stays at its "unknown" value.
    let mut system = System::new().ok();
    if let Some(system) = &mut system {
        system.refresh_cpu_list(CpuRefreshKind::nothing());
        system.refresh_memory();
    }
    let cpus = system.as_ref().map_or(&[][..], System::cpus);
    let cpu = cpus.first().map(|cpu| cpu.brand().trim().to_owned());
    HostInfo {
        cpu: cpu.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown CPU".into()),
        cores: cpus.len() as u32,
        threads: Some(rayon::current_num_threads() as u32),
        ram_bytes: system.as_ref().map_or(0, System::total_memory),
        os: System::long_os_version().unwrap_or_else(|_| std::env::consts::OS.into()),
    }
}
