//! The conditions of a run: what was measured, on what and how. No number stands without them.

use moescope_trace::BenchResult;
use moescope_trace::manifest::{DeviceInfo, DeviceType, ModelInfo, MoeLayer, TimingMode, Weights};

use crate::data::Run;
use crate::format::{NOTHING, big_count, bytes, count, interval, number, plural};
use crate::sanitize::{sanitize, shell_command};

/// A name and a value, both finished.
pub(crate) type Fact = (String, String);

fn fact(name: &str, value: impl AsRef<str>) -> Fact {
    let value = sanitize(value.as_ref());
    let value = if value.is_empty() { NOTHING.into() } else { value.into_owned() };
    (name.into(), value)
}

/// The most important facts, for the top of the page.
pub(crate) fn summary(run: &Run<'_>) -> Vec<Fact> {
    let manifest = run.manifest;
    let (model, device, settings) = (&manifest.model, &manifest.device, &manifest.settings);
    let mut dtype = model.dtype.clone();
    if let Some(quantisation) = &model.quantisation {
        dtype.push_str(&format!(", {quantisation}"));
    }
    let mut facts = vec![
        fact("Model", &model.name),
        fact("Weights", weights(model.weights)),
        fact("Parameters", parameters(model)),
        fact("Experts", experts(run.layers())),
        fact("Compute type", dtype),
        fact("Device", format!("{} ({})", device.adapter, device_type(device.device_type))),
        fact("Backend", &device.backend),
        fact("Driver", driver(device)),
        fact("Experts layer", &settings.moe_impl),
        fact("Prompts", prompts(run)),
        fact("Tokens", tokens(run)),
    ];
    facts.splice(2..2, unusual(model));
    for (phase, name) in [("prefill", "Prefill"), ("decode", "Decode")] {
        if let Some(row) = run.throughput(phase) {
            facts.push(fact(name, format!("{} tokens/s", number(row.value))));
        }
    }
    if let Some(row) = run.overall("mean_logprob") {
        facts.push(fact("Mean log-probability", format!("{} nats per token", number(row.value))));
    }
    facts.push(fact("Recorded", moment(&manifest.created_at)));
    facts.push(fact("Status", status(run)));
    // A processor has no driver, an import no parameters: nothing to say is not said.
    facts.retain(|(_, value)| value != NOTHING);
    facts
}

/// `2026-02-03T04:05:06Z` as `2026-02-03 04:05 UTC`; anything else as it is.
fn moment(rfc3339: &str) -> String {
    match (rfc3339.get(..10), rfc3339.get(10..11), rfc3339.get(11..16), rfc3339.ends_with('Z')) {
        (Some(date), Some("T"), Some(time), true) => format!("{date} {time} UTC"),
        _ => rfc3339.into(),
    }
}

/// Everything the manifest says.
pub(crate) fn all(run: &Run<'_>) -> Vec<Fact> {
    let manifest = run.manifest;
    let (model, device, host, settings) =
        (&manifest.model, &manifest.device, &manifest.host, &manifest.settings);
    let hex = |id: Option<u32>| id.map_or(String::new(), |id| format!("0x{id:04x}"));
    let mut facts = vec![
        fact("Run id", &manifest.run_id),
        fact("Recorded", &manifest.created_at),
        fact("Status", status(run)),
        fact("Command", shell_command(&manifest.command)),
        fact("moescope", version(&manifest.moescope_version, manifest.git_commit.as_deref())),
        fact("Model", format!("{}, {}", model.name, model.architecture)),
        fact("Model source", &model.source),
        fact("Weights", weights(model.weights)),
        fact("Weights hash", &model.weights_hash),
        fact("Config hash", &model.config_hash),
        fact("Parameters", parameters(model)),
        fact("Weights on the device", bytes(model.bytes as f64)),
        fact("Compute type", &model.dtype),
        fact("Quantisation", model.quantisation.as_deref().unwrap_or("none")),
        fact("Experts", experts(run.layers())),
        fact("Experts layer", &settings.moe_impl),
        fact("Backend", &device.backend),
        fact("Device", format!("{} ({})", device.adapter, device_type(device.device_type))),
        fact("Driver", device.driver.as_deref().unwrap_or_default()),
        fact("Driver version", device.driver_version.as_deref().unwrap_or_default()),
        fact("Vendor and device id", {
            let ids = [hex(device.vendor_id), hex(device.device_id)];
            ids.into_iter().filter(|id| !id.is_empty()).collect::<Vec<_>>().join(" ")
        }),
    ];
    let weights = facts.iter().position(|(name, _)| name == "Weights").unwrap_or(facts.len());
    facts.splice(weights..weights, unusual(model));
    for (name, limit) in &device.limits {
        facts.push(fact(&format!("Limit {}", sanitize(name)), bytes(*limit as f64)));
    }
    facts.extend([
        fact("Processor", format!("{}, {}", host.cpu, plural(host.cores.into(), "core"))),
        fact("Memory", bytes(host.ram_bytes as f64)),
        fact("System", &host.os),
        fact("Batch", plural(settings.batch.into(), "sequence")),
        fact(
            "Tokens per prompt",
            match settings.max_tokens {
                0 => "prefill only".into(),
                n => format!("at most {}", count(n.into())),
            },
        ),
        fact("Sampling", sampling(run)),
        fact("Seed", settings.seed.to_string()),
        fact(
            "Timing",
            match settings.timing_mode {
                TimingMode::EndToEnd => "one synchronised time per forward pass",
                TimingMode::Profiled => {
                    "a synchronisation after every component; passes are slower than real ones"
                }
                TimingMode::None => "none",
            },
        ),
        fact("Prompts", prompts(run)),
        fact("Prompts hash", &manifest.prompts_hash),
        fact("Tokens", tokens(run)),
    ]);
    for (phase, name) in [("prefill", "Prefill"), ("decode", "Decode")] {
        if let Some(row) = run.throughput(phase) {
            let text =
                format!("{} tokens/s, 95 % interval {}", number(row.value), interval(row.interval));
            facts.push(fact(name, text));
        }
    }
    facts
}

/// The conditions of a bench result: its environment fingerprint and how it was run.
pub(crate) fn of_bench(bench: &BenchResult) -> Vec<Fact> {
    let print = &bench.fingerprint;
    let (model, device, host, state) = (&print.model, &print.device, &print.host, &print.state);
    let mut facts = vec![
        fact("Bench id", &bench.id),
        fact("Measured", &bench.created_at),
        fact("Command", shell_command(&bench.command)),
        fact("moescope", version(&print.moescope_version, print.git_commit.as_deref())),
        fact("Model", format!("{}, {}", model.name, model.architecture)),
        fact("Model source", &model.source),
        fact("Weights", weights(model.weights)),
        fact("Weights hash", &model.weights_hash),
        fact("Parameters", parameters(model)),
        fact("Weights on the device", bytes(model.bytes as f64)),
        fact("Compute type", &model.dtype),
        fact("Quantisation", model.quantisation.as_deref().unwrap_or("none")),
        fact("Experts", experts(&print.moe.layers)),
        fact("Experts layer", &print.moe_impl),
        fact("Backend", &device.backend),
        fact("Device", format!("{} ({})", device.adapter, device_type(device.device_type))),
        fact("Driver", driver(device)),
        fact("Processor", format!("{}, {}", host.cpu, plural(host.cores.into(), "core"))),
        fact("Memory", bytes(host.ram_bytes as f64)),
        fact("System", &host.os),
    ];
    facts.splice(7..7, unusual(model));
    let megahertz = |mhz: f64| format!("{} MHz", number(mhz));
    let state = [
        ("Processor governor", state.cpu_governor.clone()),
        ("Processor clock", state.cpu_mhz.map(megahertz)),
        ("Power", state.power_source.clone()),
        ("Load before", state.load_average.map(|load| load.map(number).join(", "))),
        ("GPU clock", state.gpu_mhz.map(megahertz)),
        ("GPU state", state.gpu_state.clone()),
        ("Tuning of kernels", print.autotune.level.clone()),
        (
            "Peaks measured",
            bench.peaks.map(|peaks| {
                format!(
                    "{} GB/s read, {} GFLOP/s",
                    number(peaks.read_bytes_per_second / 1e9),
                    number(peaks.flops / 1e9)
                )
            }),
        ),
    ];
    facts.extend(state.into_iter().filter_map(|(name, value)| Some(fact(name, value?))));
    facts.retain(|(_, value)| value != NOTHING);
    facts
}

/// Version and commit.
fn version(version: &str, commit: Option<&str>) -> String {
    let commit = commit.map_or(String::new(), |commit| format!(", commit {commit}"));
    format!("{version}{commit}")
}

fn driver(device: &DeviceInfo) -> String {
    match (&device.driver, &device.driver_version) {
        (Some(name), Some(version)) => format!("{name} {version}"),
        (Some(name), None) => name.clone(),
        _ => String::new(),
    }
}

/// What a label means, for the note below the runs.
pub(crate) fn meaning(label: &str) -> &'static str {
    match label {
        "partial run" => {
            "the run did not reach its end; its numbers cover what was recorded until then"
        }
        "random weights" => {
            "the weights were drawn at random: speed and memory mean something, routing and text do not"
        }
        "first layers only" => {
            "the model was cut to its first layers, at true width: the times of its layers are real, those of \
             the whole are not, and its text means nothing"
        }
        "rumoured shapes" => {
            "nobody has published this model: its shapes are a guess, and so are speed and memory"
        }
        "software adapter" => {
            "the GPU interface was emulated on the processor: its speed says nothing about a GPU"
        }
        "profiled" => {
            "the device was synchronised after every component: passes take longer than real ones"
        }
        label if label.starts_with("injected") => {
            "a fault was put into the forward pass on purpose, to see whether the gate finds it"
        }
        _ => "see the conditions at the end",
    }
}

fn status(run: &Run<'_>) -> String {
    if run.partial { "partial: it did not reach its end".into() } else { "complete".into() }
}

fn weights(weights: Weights) -> &'static str {
    match weights {
        Weights::Trained => "trained",
        Weights::Random => "random",
    }
}

/// What sets a model apart from a whole published one; usually nothing.
fn unusual(model: &ModelInfo) -> Vec<Fact> {
    let layers = model.layers_kept.map(|layers| {
        fact("Layers", format!("the first {} of {}, at true width", layers.kept, layers.of))
    });
    let rumour = model.rumour.then(|| fact("Shapes", "rumoured, not published"));
    layers.into_iter().chain(rumour).collect()
}

fn device_type(kind: DeviceType) -> &'static str {
    match kind {
        DeviceType::Cpu => "processor",
        DeviceType::Integrated => "integrated GPU",
        DeviceType::Discrete => "discrete GPU",
        DeviceType::Software => "software adapter",
        DeviceType::Unknown => "kind unknown",
    }
}

fn parameters(model: &ModelInfo) -> String {
    if model.total_parameters == 0 {
        return String::new();
    }
    format!("{}, {} active", big_count(model.total_parameters), big_count(model.active_parameters))
}

/// `8 of 128 in 30 layers`, with a part per group of equal layers.
fn experts(layers: &[MoeLayer]) -> String {
    let mut groups: Vec<(MoeLayer, u64)> = Vec::new();
    for layer in layers {
        let alike = |other: &MoeLayer| {
            (other.experts, other.top_k, other.shared_experts)
                == (layer.experts, layer.top_k, layer.shared_experts)
        };
        match groups.iter_mut().find(|(other, _)| alike(other)) {
            Some((_, number)) => *number += 1,
            None => groups.push((*layer, 1)),
        }
    }
    if groups.is_empty() {
        return "none: a dense model".into();
    }
    let parts: Vec<String> = groups
        .iter()
        .map(|(layer, number)| {
            let shared = match layer.shared_experts {
                0 => String::new(),
                n => format!(" and {n} shared"),
            };
            let layers = plural(*number, "layer");
            format!("{} of {}{shared} in {layers}", layer.top_k, layer.experts)
        })
        .collect();
    parts.join("; ")
}

fn prompts(run: &Run<'_>) -> String {
    let asked = u64::from(run.manifest.sequences);
    let domains = plural(run.domains.len() as u64, "domain");
    if run.sequences < asked {
        format!("{} of {} in {domains}", count(run.sequences), count(asked))
    } else {
        format!("{} in {domains}", count(run.sequences))
    }
}

fn tokens(run: &Run<'_>) -> String {
    format!(
        "{} ({} prompt, {} generated)",
        count(run.tokens),
        count(run.prefill_tokens),
        count(run.decode_tokens)
    )
}

fn sampling(run: &Run<'_>) -> String {
    let sampling = run.manifest.settings.sampling;
    if sampling.temperature == 0.0 {
        return "greedy".into();
    }
    let mut text = format!("temperature {}", sampling.temperature);
    if sampling.top_k > 0 {
        text.push_str(&format!(", top-k {}", sampling.top_k));
    }
    if sampling.top_p < 1.0 {
        text.push_str(&format!(", top-p {}", sampling.top_p));
    }
    text
}
