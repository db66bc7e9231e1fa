//! What a measurement depends on besides the program: the environment fingerprint.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::manifest::{DeviceInfo, HostInfo, Manifest, ModelInfo, MoeShape};

/// The conditions of a measurement. Two measurements compare where these agree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The model, its weights' hash and type.
    pub model: ModelInfo,
    /// The shape of its MoE layers.
    pub moe: MoeShape,
    /// Implementation of the experts layer (`--moe-impl`).
    pub moe_impl: String,
    /// The device and its driver.
    pub device: DeviceInfo,
    /// The machine around the device.
    pub host: HostInfo,
    /// Version of moescope.
    pub moescope_version: String,
    /// Commit moescope was built from, where known.
    pub git_commit: Option<String>,
    /// Clocks, power and load, as far as the platform tells.
    #[serde(default)]
    pub state: MachineState,
    /// How kernel variants were chosen.
    #[serde(default)]
    pub autotune: Autotune,
}

/// What makes a machine faster or slower from one hour to the next. `None` where not readable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MachineState {
    /// Frequency governor of the first core, such as `performance`.
    pub cpu_governor: Option<String>,
    /// Clock of the first core at the start, MHz.
    pub cpu_mhz: Option<f64>,
    /// `mains` or `battery`.
    pub power_source: Option<String>,
    /// Mean number of running processes over 1, 5 and 15 minutes before the start.
    pub load_average: Option<[f64; 3]>,
    /// Graphics clock of the GPU at the start, MHz.
    pub gpu_mhz: Option<f64>,
    /// Performance state of the GPU as its driver names it, such as `P0`.
    pub gpu_state: Option<String>,
}

/// How kernel variants were chosen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Autotune {
    /// Level of search (`CUBECL_AUTOTUNE_LEVEL`); `None` where nothing is tuned or it is not known.
    pub level: Option<String>,
    /// Variants chosen, one per kernel, where the backend tells.
    #[serde(default)]
    pub decisions: Vec<String>,
}

/// What a difference of fingerprints is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    /// Another model, weights, type or implementation: results differ by nature.
    Model,
    /// Another device, driver or machine: times differ by nature.
    Device,
    /// Another clock, power or load: times may differ.
    State,
}

/// One field in which two fingerprints differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What the field is about.
    pub aspect: Aspect,
    /// Its name.
    pub field: &'static str,
    /// Its value in the base.
    pub base: String,
    /// Its value in the other.
    pub other: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} against {}", self.field, self.base, self.other)
    }
}

/// Load per core beyond which a measurement had company.
const BUSY: f64 = 0.5;

impl Fingerprint {
    /// What a run's manifest tells: everything but how kernel variants were chosen.
    pub fn of_run(manifest: &Manifest) -> Self {
        Self {
            model: manifest.model.clone(),
            moe: manifest.moe.clone(),
            moe_impl: manifest.settings.moe_impl.clone(),
            device: manifest.device.clone(),
            host: manifest.host.clone(),
            moescope_version: manifest.moescope_version.clone(),
            git_commit: manifest.git_commit.clone(),
            state: manifest.state.clone(),
            autotune: Autotune::default(),
        }
    }

    /// Fields that differ, models before devices before states. The commit is none of them: it is what
    /// comparisons are for; nor are names, which are for people.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let (a, b) = (self.fields(), other.fields());
        std::iter::zip(a, b)
            .filter(|(base, other)| base.2 != other.2)
            .map(|((aspect, field, base), (_, _, other))| Difference { aspect, field, base, other })
            .collect()
    }

    /// Everything that has to agree, in words, for the series of a history: results with the same text
    /// compare.
    pub fn identity(&self) -> String {
        let fields = self.fields().into_iter().filter(|field| field.0 != Aspect::State);
        fields.map(|(_, name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    /// All fields that are compared: what they are about, name, value (`unknown` where the platform does not tell).
    pub fn fields(&self) -> Vec<(Aspect, &'static str, String)> {
        use Aspect::{Device, Model, State};
        let optional = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".into());
        let number = |id: Option<u32>| id.map_or("unknown".into(), |id| format!("{id:#06x}"));
        let (model, device, host) = (&self.model, &self.device, &self.host);
        let layers = match model.layers_kept {
            Some(cut) => format!("{} of {}", cut.kept, cut.of),
            None => "all".into(),
        };
        let busy = self.state.load_average.map(|[minute, ..]| {
            let share = minute / f64::from(host.cores.max(1));
            if share > BUSY { "busy" } else { "idle" }
        });
        vec![
            (Model, "architecture", model.architecture.clone()),
            (Model, "config hash", model.config_hash.clone()),
            (Model, "weights hash", model.weights_hash.clone()),
            (Model, "dtype", model.dtype.clone()),
            (Model, "quantisation", model.quantisation.clone().unwrap_or_else(|| "none".into())),
            (Model, "layers", layers),
            (Model, "moe-impl", self.moe_impl.clone()),
            (Device, "backend", device.backend.clone()),
            (Device, "device", device.adapter.clone()),
            (Device, "driver", optional(&device.driver)),
            (Device, "driver version", optional(&device.driver_version)),
            (Device, "vendor id", number(device.vendor_id)),
            (Device, "device id", number(device.device_id)),
            (Device, "CPU", host.cpu.clone()),
            (Device, "cores", host.cores.to_string()),
            (Device, "memory", format!("{:.0} GiB", host.ram_bytes as f64 / (1u64 << 30) as f64)),
            (Device, "operating system", host.os.clone()),
            (Device, "autotune level", optional(&self.autotune.level)),
            (State, "CPU governor", optional(&self.state.cpu_governor)),
            (State, "power", optional(&self.state.power_source)),
            (State, "GPU state", optional(&self.state.gpu_state)),
            (State, "load at the start", busy.unwrap_or("unknown").into()),
        ]
    }
}
