//! What a measurement depends on besides the program: the environment fingerprint.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::manifest::{DeviceInfo, HostInfo, Manifest, ModelInfo, MoeShape};

/// End of the name of a commit whose tree had changes that were not committed.
pub const DIRTY: &str = "-dirty";

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
    /// Commit moescope was built from, where known; it ends with [`DIRTY`] where the tree had other changes.
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
    /// Another clock, power, load or choice of kernels: times may differ.
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

/// Share by which two clocks may differ and count as the same: they are read at one moment each.
const CLOCK_TOLERANCE: f64 = 0.1;

const UNKNOWN: &str = "unknown";

/// Device fields that older versions did not keep: not known is no difference of devices, and worth saying.
const ADDED: &[&str] = &["threads"];

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
        let fields = std::iter::zip(a, b).filter(|(base, other)| base.2 != other.2).map(
            |((aspect, field, base), (_, _, other))| {
                let kept_by_one = [&base, &other].into_iter().any(|value| *value == UNKNOWN);
                let aspect = match ADDED.contains(&field) && kept_by_one {
                    true => Aspect::State,
                    false => aspect,
                };
                Difference { aspect, field, base, other }
            },
        );
        let mut found: Vec<Difference> = fields.collect();
        found.sort_by_key(|difference| difference.aspect as u8);
        found.extend(self.clocks(other));
        found.extend(self.autotune.difference(&other.autotune));
        found
    }

    /// Clocks that are further apart than [`CLOCK_TOLERANCE`].
    fn clocks(&self, other: &Self) -> impl Iterator<Item = Difference> {
        let (a, b) = (&self.state, &other.state);
        let clocks = [("CPU clock", a.cpu_mhz, b.cpu_mhz), ("GPU clock", a.gpu_mhz, b.gpu_mhz)];
        clocks.into_iter().filter_map(|(field, base, other)| {
            let differ = match (base, other) {
                (Some(a), Some(b)) => (a - b).abs() > CLOCK_TOLERANCE * a.max(b),
                _ => base.is_some() != other.is_some(),
            };
            let text = |mhz: Option<f64>| {
                mhz.map_or_else(|| UNKNOWN.to_owned(), |mhz| format!("{mhz:.0} MHz"))
            };
            let (base, other) = (text(base), text(other));
            differ.then_some(Difference { aspect: Aspect::State, field, base, other })
        })
    }

    /// Whether the tree that moescope was built from had changes that its commit does not.
    pub fn is_dirty(&self) -> bool {
        self.git_commit.as_ref().is_some_and(|commit| commit.ends_with(DIRTY))
    }

    /// Everything that has to agree, in words, for the series of a history: results with the same text
    /// compare.
    pub fn identity(&self) -> String {
        let fields = self.fields().into_iter().filter(|(aspect, name, value)| {
            // What older versions did not keep: series of theirs keep their name.
            *aspect != Aspect::State && !(ADDED.contains(name) && value == UNKNOWN)
        });
        fields.map(|(_, name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    /// All fields that are compared: what they are about, name, value (`unknown` where the platform does not tell).
    pub fn fields(&self) -> Vec<(Aspect, &'static str, String)> {
        use Aspect::{Device, Model, State};
        let optional = |text: &Option<String>| text.clone().unwrap_or_else(|| UNKNOWN.into());
        let number = |id: Option<u32>| id.map_or(UNKNOWN.into(), |id| format!("{id:#06x}"));
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
            (Device, "threads", optional(&host.threads.map(|threads| threads.to_string()))),
            (Device, "memory", format!("{:.0} GiB", host.ram_bytes as f64 / (1u64 << 30) as f64)),
            (Device, "operating system", host.os.clone()),
            (Device, "autotune level", optional(&self.autotune.level)),
            (State, "CPU governor", optional(&self.state.cpu_governor)),
            (State, "power", optional(&self.state.power_source)),
            (State, "GPU state", optional(&self.state.gpu_state)),
            (State, "load at the start", busy.unwrap_or(UNKNOWN).into()),
        ]
    }
}

impl Autotune {
    /// Kernels of which another variant was chosen, or that only one side met.
    fn difference(&self, other: &Self) -> Option<Difference> {
        let only = |of: &Self, than: &Self| {
            let all: BTreeSet<&String> = than.decisions.iter().collect();
            let only: Vec<&String> = of.decisions.iter().filter(|d| !all.contains(d)).collect();
            let count = of.decisions.len();
            match only.first() {
                None => (0, format!("all of {count}")),
                // One stands for all: there may be hundreds.
                Some(first) => (only.len(), format!("{} of {count} ({first})", only.len())),
            }
        };
        let ((of_base, base), (of_other, other)) = (only(self, other), only(other, self));
        (of_base + of_other > 0).then_some(Difference {
            aspect: Aspect::State,
            field: "variants of kernels that the other did not choose",
            base,
            other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(host: &str, state: &str, decisions: &[&str]) -> Fingerprint {
        let text = format!(
            r#"{{"model": {{"name": "m", "source": "m", "architecture": "A", "config_hash": "c",
            "weights_hash": "w", "dtype": "f32", "quantisation": null, "total_parameters": 1,
            "active_parameters": 1, "bytes": 4, "weights": "trained"}}, "moe": {{"layers": []}},
            "moe_impl": "selected", "device": {{"backend": "flex", "adapter": "cpu", "driver": null,
            "driver_version": null, "vendor_id": null, "device_id": null, "device_type": "cpu"}},
            "host": {{"cpu": "cpu", "cores": 2, "ram_bytes": 1, "os": "os"{host}}},
            "moescope_version": "1", "git_commit": "abc", "state": {{{state}}}}}"#
        );
        let mut fingerprint: Fingerprint = serde_json::from_str(&text).unwrap();
        fingerprint.autotune.decisions = decisions.iter().map(|&d| d.to_owned()).collect();
        fingerprint
    }

    fn said(base: &Fingerprint, other: &Fingerprint) -> Vec<(Aspect, String)> {
        let all = base.differences(other).into_iter();
        all.map(|difference| (difference.aspect, difference.to_string())).collect()
    }

    #[test]
    fn threads_are_a_condition_where_both_know_them() {
        let [old, one, two] =
            ["", r#", "threads": 1"#, r#", "threads": 2"#].map(|host| of(host, "", &[]));
        assert_eq!(said(&one, &one), []);
        assert_eq!(said(&one, &two), [(Aspect::Device, "threads: 1 against 2".into())]);
        assert_ne!(one.identity(), two.identity());
        // A result of an older version: still read, said, and a series of the name it had.
        assert_eq!(said(&old, &two), [(Aspect::State, "threads: unknown against 2".into())]);
        assert!(!old.identity().contains("threads"), "{}", old.identity());
    }

    #[test]
    fn clocks_differ_beyond_a_tolerance() {
        let at = |state: &str| of("", state, &[]);
        let base = at(r#""cpu_mhz": 2000.0, "gpu_mhz": 1000.0"#);
        assert_eq!(said(&base, &at(r#""cpu_mhz": 2150.0, "gpu_mhz": 950.0"#)), []);
        let found = said(&base, &at(r#""cpu_mhz": 2600.0"#));
        let want = ["CPU clock: 2000 MHz against 2600 MHz", "GPU clock: 1000 MHz against unknown"];
        assert_eq!(found, want.map(|text| (Aspect::State, text.to_owned())));
        // A clock that moves is another state of one machine, not another series.
        assert_eq!(base.identity(), at("").identity());
    }

    #[test]
    fn another_choice_of_kernels_is_another_state() {
        let (base, same) = (of("", "", &["a -> 0", "b -> 1"]), of("", "", &["b -> 1", "a -> 0"]));
        assert_eq!(said(&base, &same), []);
        let found = said(&base, &of("", "", &["a -> 0", "b -> 2", "c -> 0"]));
        let [(Aspect::State, text)] = found.as_slice() else { panic!("{found:?}") };
        assert!(text.ends_with("1 of 2 (b -> 1) against 2 of 3 (b -> 2)"), "{text}");
        let found = said(&base, &of("", "", &["a -> 0"]));
        assert!(found[0].1.ends_with("1 of 2 (b -> 1) against all of 1"), "{found:?}");
    }

    #[test]
    fn a_commit_says_whether_its_tree_was_changed() {
        let mut fingerprint = of("", "", &[]);
        assert!(!fingerprint.is_dirty());
        fingerprint.git_commit = Some("abc-dirty".into());
        assert!(fingerprint.is_dirty());
    }
}
