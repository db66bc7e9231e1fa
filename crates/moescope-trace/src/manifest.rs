//! `manifest.json`: what a run ran, on what, and how.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fingerprint::MachineState;

/// The schema this build writes and the only one it reads.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything a reader must know about a run before it opens a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the run directory's layout; see [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Unique id of the run.
    pub run_id: String,
    /// Start of the run, UTC, RFC 3339.
    pub created_at: String,
    /// Whether the run reached its end.
    pub status: Status,
    /// Version of moescope that wrote the run (or imported it).
    pub moescope_version: String,
    /// Commit moescope was built from, where known.
    pub git_commit: Option<String>,
    /// The command line that made the run, one argument per item.
    pub command: Vec<String>,
    /// The model that ran.
    pub model: ModelInfo,
    /// The shape of its MoE layers.
    pub moe: MoeShape,
    /// The device it ran on.
    pub device: DeviceInfo,
    /// The machine around the device.
    pub host: HostInfo,
    /// Clocks, power and load at the start, as far as the platform tells; nothing is known of imports and of
    /// runs from before it was kept.
    #[serde(default)]
    pub state: MachineState,
    /// How the run was made.
    pub settings: Settings,
    /// Hash of the prompt set: ids, domains and token ids in order.
    pub prompts_hash: String,
    /// Number of sequences (prompts) the run was asked for.
    pub sequences: u32,
}

/// Whether a run reached its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All prompts were processed and all parts written.
    Complete,
    /// The run is under way or died: the parts present are whole, the rest is missing.
    Partial,
}

/// Where a model's weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// Read from a checkpoint.
    Trained,
    /// Drawn at random: speed and memory mean something, routing and text do not.
    Random,
}

/// The model of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Short name for tables and legends, such as `tiny-gemma4-moe`.
    pub name: String,
    /// The MODEL argument: a directory, a file, an id.
    pub source: String,
    /// Architecture as in `config.json`, such as `Gemma4ForCausalLM`.
    pub architecture: String,
    /// Hash of `config.json`.
    pub config_hash: String,
    /// Hash over all weights (names, types, shapes, bytes); empty where unknown (imports).
    pub weights_hash: String,
    /// Type the weights are held and multiplied in: `f32`, `f16`, `bf16`.
    pub dtype: String,
    /// Quantisation format, if any.
    pub quantisation: Option<String>,
    /// Parameters in all.
    pub total_parameters: u64,
    /// Parameters one token uses.
    pub active_parameters: u64,
    /// Bytes of the weights on the device.
    pub bytes: u64,
    /// Trained or random.
    pub weights: Weights,
    /// The layers that ran, where the model was cut to its first ones; absent in a whole model and in
    /// runs from before models could be cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers_kept: Option<LayersKept>,
    /// Whether the shapes are those of a model that nobody has published.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rumour: bool,
    /// What was done to the forward pass on purpose, to test the gate; absent in everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injected: Option<Injected>,
}

/// Faults put into a forward pass on purpose, to test that the gate finds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Injected {
    /// Every pass takes longer by this many percent of its own time.
    pub slowdown_percent: f64,
    /// One pass in four sends its tokens to other experts in the last MoE layer.
    pub routing: bool,
}

impl Injected {
    /// What a reader must know wherever numbers of such a pass appear.
    pub fn labels(self) -> Vec<&'static str> {
        let slow = (self.slowdown_percent > 0.0).then_some(INJECTED_SLOWDOWN);
        slow.into_iter().chain(self.routing.then_some(INJECTED_ROUTING)).collect()
    }
}

const INJECTED_SLOWDOWN: &str = "injected slow-down, for tests of the gate";
const INJECTED_ROUTING: &str = "injected routing, for tests of the gate";

/// The first `kept` of `of` decoder layers, at true width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayersKept {
    /// Layers that ran.
    pub kept: u32,
    /// Layers of the whole model.
    pub of: u32,
}

/// The MoE layers of a model, in order. Empty for a dense model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MoeShape {
    /// One entry per MoE layer.
    pub layers: Vec<MoeLayer>,
}

/// One MoE layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoeLayer {
    /// Index among all decoder layers of the model, as in the `layer` column.
    pub layer: u16,
    /// Routed experts, E.
    pub experts: u16,
    /// Experts per token, k.
    pub top_k: u16,
    /// Experts every token uses beside the routed ones.
    pub shared_experts: u16,
}

/// What kind of device a run used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceType {
    /// The host's processor.
    Cpu,
    /// A GPU that shares the host's memory.
    Integrated,
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU interface emulated on the processor (llvmpipe and the like).
    Software,
    /// Not known.
    Unknown,
}

/// The device of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Burn backend: `flex` or `wgpu`.
    pub backend: String,
    /// Adapter or processor name.
    pub adapter: String,
    /// Driver name, where there is one.
    pub driver: Option<String>,
    /// Driver version.
    pub driver_version: Option<String>,
    /// PCI vendor id.
    pub vendor_id: Option<u32>,
    /// PCI device id.
    pub device_id: Option<u32>,
    /// Kind of device.
    pub device_type: DeviceType,
    /// Limits by name (`max_buffer_size`, `max_storage_buffer_binding_size`), bytes.
    #[serde(default)]
    pub limits: BTreeMap<String, u64>,
}

/// The machine of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostInfo {
    /// Processor name.
    pub cpu: String,
    /// Logical cores of the machine.
    pub cores: u32,
    /// Threads the program computes with: what affinity, quotas and `RAYON_NUM_THREADS` leave of the cores. Not
    /// known of measurements from before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// Installed memory, bytes.
    pub ram_bytes: u64,
    /// Operating system and version.
    pub os: String,
}

/// How times were taken. End-to-end and per-component times never come from the same pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimingMode {
    /// One synchronised time per forward pass (`steps/`).
    EndToEnd,
    /// A synchronisation after every component (`layers/`); its step times are longer than real ones.
    Profiled,
    /// No times (imports).
    None,
}

/// How tokens were chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplingInfo {
    /// 0 is greedy.
    pub temperature: f32,
    /// Keep the k most probable tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of tokens with at least this probability; 1 keeps all.
    pub top_p: f32,
}

/// What a reader must know of a model and a device wherever numbers of theirs appear: `random weights`,
/// `first layers only`, `rumoured shapes`, `software adapter`, and what was injected.
pub fn labels(model: &ModelInfo, device: &DeviceInfo) -> Vec<&'static str> {
    let general = [
        (model.weights == Weights::Random, "random weights"),
        (model.layers_kept.is_some(), "first layers only"),
        (model.rumour, "rumoured shapes"),
        (device.device_type == DeviceType::Software, "software adapter"),
    ]
    .into_iter()
    .filter_map(|(applies, label)| applies.then_some(label));
    model.injected.map_or_else(Vec::new, Injected::labels).into_iter().chain(general).collect()
}

impl Manifest {
    /// [`labels`] of a run, and of how it was taken: `partial run`, `profiled`.
    pub fn labels(&self, partial: bool) -> Vec<&'static str> {
        let mut all = Vec::new();
        all.extend(partial.then_some("partial run"));
        all.extend(labels(&self.model, &self.device));
        let profiled = self.settings.timing_mode == TimingMode::Profiled;
        all.extend(profiled.then_some("profiled"));
        all
    }
}

/// How the run was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Sequences per forward pass.
    pub batch: u32,
    /// Seed of the sampler.
    pub seed: u64,
    /// Token choice.
    pub sampling: SamplingInfo,
    /// Tokens generated per prompt; 0 is prefill only.
    pub max_tokens: u32,
    /// Implementation of the experts layer (`--moe-impl`).
    pub moe_impl: String,
    /// How times were taken.
    pub timing_mode: TimingMode,
    /// Whether the norms of the experts' outputs were recorded (`--saliency`), which costs time in every
    /// pass. Runs from before this was said have it as false, whatever they recorded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub saliency: bool,
}
