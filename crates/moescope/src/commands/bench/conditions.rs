//! What a result was measured on, listed once for all forms: the fingerprint, and what else its numbers hang on.

use moescope_report::sanitize;

use super::Printed;

/// Digits of a hash that tell results apart for people.
const HASH: usize = 12;

/// All conditions by name, in the words of the fingerprint; empty where not known.
pub(super) fn all(printed: &Printed<'_>) -> Vec<(&'static str, String)> {
    let result = printed.result;
    let fingerprint = &result.fingerprint;
    let (state, peaks) = (&fingerprint.state, result.peaks.as_ref());
    let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    let load = state.load_average.map(|load| load.map(|n| format!("{n:.2}")).join(" "));
    let fields = fingerprint.fields().into_iter().map(|(_, name, value)| match &*value {
        "unknown" => (name, String::new()),
        _ => (name, value),
    });
    let before = [
        ("moescope version", fingerprint.moescope_version.clone()),
        ("git commit", fingerprint.git_commit.clone().unwrap_or_default()),
    ];
    let after = [
        ("CPU MHz", number(state.cpu_mhz)),
        ("GPU MHz", number(state.gpu_mhz)),
        ("load average", load.unwrap_or_default()),
        ("autotune decisions", fingerprint.autotune.decisions.join("; ")),
        ("peak read bytes per second", number(peaks.map(|peaks| peaks.read_bytes_per_second))),
        ("peak FLOPs", number(peaks.map(|peaks| peaks.flops))),
        ("energy source", result.energy.as_ref().map_or(String::new(), |e| e.source.clone())),
        ("workload hash", result.workload_hash.clone().unwrap_or_default()),
    ];
    before.into_iter().chain(fields).chain(after).collect()
}

/// Those that are known in one line for people: hashes shortened, decisions counted. Peaks and the counter of
/// energy have lines of their own.
pub(super) fn line(printed: &Printed<'_>) -> String {
    let decisions = printed.result.fingerprint.autotune.decisions.len();
    let shown = all(printed).into_iter().filter_map(|(name, value)| match name {
        _ if value.is_empty() => None,
        "autotune decisions" => Some(format!("{name} {decisions} (in JSON and CSV)")),
        "energy source" => None,
        _ if name.starts_with("peak ") => None,
        _ if name.ends_with(" hash") => {
            Some(format!("{name} {}", value.chars().take(HASH).collect::<String>()))
        }
        _ if name.ends_with(" MHz") => {
            Some(format!("{name} {}", value.split('.').next().unwrap_or_default()))
        }
        _ => Some(format!("{name} {value}")),
    });
    sanitize(&shown.collect::<Vec<_>>().join("; ")).into_owned()
}

/// What counted the energy, where something did.
pub(super) fn energy(printed: &Printed<'_>) -> Option<String> {
    let meter = printed.result.energy.as_ref()?;
    let what = match &*meter.source {
        "nvml" => "the whole board (NVML)",
        "hwmon" => "the counter of the GPU's driver (hwmon)",
        "hwmon-sampled" => "power of the GPU, integrated (hwmon)",
        "rapl" => "all packages of the processor, whatever runs on them (RAPL)",
        other => other,
    };
    let step = meter.step_ns as f64 / 1e6;
    Some(sanitize(&format!("{what}, in steps of {step} ms")).into_owned())
}
