//! Analyses with made-up numbers in the shapes of real models.

use std::collections::BTreeMap;

use moescope_analysis::{
    Analysis, Coactivation, Comparison, Excerpt, Finding, Index, LayerData, MetricRow, Pruning,
    RunData, Specialist, Specialists, StepSeries, Structure, TokenTexts, TokenWise, Transitions,
};
use moescope_trace::Phase;
use moescope_trace::fingerprint::MachineState;
use moescope_trace::manifest::{
    DeviceInfo, DeviceType, HostInfo, Manifest, ModelInfo, MoeLayer, MoeShape, SCHEMA_VERSION,
    SamplingInfo, Settings, Status, TimingMode, Weights,
};

/// What a made-up run looks like.
#[derive(Clone)]
pub(super) struct Shape {
    pub(super) name: String,
    pub(super) layers: u16,
    pub(super) experts: u16,
    pub(super) top_k: u16,
    pub(super) domains: Vec<String>,
    /// Prompts; each is one prefill pass and `generated` decode passes.
    pub(super) prompts: usize,
    pub(super) generated: usize,
    /// Changes all random numbers a little.
    pub(super) seed: u64,
    pub(super) speed: f64,
    pub(super) partial: bool,
    pub(super) weights: Weights,
    pub(super) device: DeviceType,
}

impl Shape {
    pub(super) fn new(name: &str, layers: u16, experts: u16, top_k: u16) -> Self {
        let domains =
            ["c", "chinese", "dialogue", "english prose", "french", "html", "mathematics", "rust"];
        Self {
            name: name.into(),
            layers,
            experts,
            top_k,
            domains: domains.map(String::from).to_vec(),
            prompts: 12,
            generated: 16,
            seed: 1,
            speed: 1.0,
            partial: false,
            weights: Weights::Trained,
            device: DeviceType::Cpu,
        }
    }
}

/// xorshift: numbers in 0..1, the same everywhere.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn row(metric: &'static str, unit: &'static str, value: f64) -> MetricRow {
    MetricRow {
        metric,
        layer: None,
        index: None,
        domain: None,
        phase: None,
        value,
        interval: None,
        chance: None,
        unit,
    }
}

pub(super) fn analysis(shape: &Shape) -> Analysis {
    // The load of a model is its own; the seed only perturbs it.
    let mut base = Random::new(77 + u64::from(shape.experts));
    let mut noise = Random::new(shape.seed);
    let (experts, k) = (usize::from(shape.experts), f64::from(shape.top_k));
    let tokens = 3000.0;
    let mut rows = Vec::new();
    for layer in 0..shape.layers {
        let depth = f64::from(layer + 1) / f64::from(shape.layers);
        let load: Vec<f64> = (0..experts)
            .map(|_| (base.next() * 2.2 * (0.4 + depth) - 0.9).exp() * (0.95 + 0.1 * noise.next()))
            .map(|load| if load < 0.45 && depth > 0.6 { 0.0 } else { load })
            .collect();
        let mean = load.iter().sum::<f64>() / experts as f64;
        let mut line: Vec<f64> = load.iter().map(|load| load / mean).collect();
        for (expert, value) in line.iter().enumerate() {
            rows.push(MetricRow {
                layer: Some(layer),
                index: Some(Index::Expert(expert as u16)),
                interval: Some((value * 0.93, value * 1.07)),
                chance: Some(1.0),
                ..row("utilisation", "ratio", *value)
            });
        }
        line.sort_by(f64::total_cmp);
        let entropy: f64 = line
            .iter()
            .map(|u| u / experts as f64)
            .filter(|p| *p > 0.0)
            .map(|p| -p * p.ln())
            .sum::<f64>()
            / (experts as f64).ln().max(1e-9);
        let gini = line
            .iter()
            .enumerate()
            .map(|(n, u)| (2.0 * (n + 1) as f64 - experts as f64 - 1.0) * u)
            .sum::<f64>()
            / (experts * experts) as f64;
        let noise_level = (experts as f64 / (k * tokens)).sqrt();
        let dead = line.iter().filter(|u| **u == 0.0).count() as f64;
        let most = line[experts - 1];
        for (metric, value, chance) in [
            ("imbalance", most, 1.0 + 2.5 * noise_level),
            ("gini", gini, 0.56 * noise_level),
            ("normalised_entropy", entropy, 1.0 - noise_level * noise_level / 2.0),
            ("dead_experts", dead, 0.0),
        ] {
            rows.push(MetricRow {
                layer: Some(layer),
                interval: (metric != "dead_experts").then_some((value * 0.97, value * 1.02)),
                chance: Some(chance),
                ..row(metric, "ratio", value)
            });
        }
        if shape.domains.len() > 1 {
            for (number, domain) in shape.domains.iter().enumerate() {
                for expert in 0..experts {
                    let own = (expert * 7 + 3) % shape.domains.len() == number;
                    let pull = if own {
                        1.0 + 5.0 * depth * base.next()
                    } else {
                        1.0 - 0.7 * depth * base.next()
                    };
                    rows.push(MetricRow {
                        layer: Some(layer),
                        index: Some(Index::Expert(expert as u16)),
                        domain: Some(domain.clone()),
                        chance: Some(k / experts as f64),
                        ..row(
                            "domain_specialisation",
                            "ratio",
                            (k / experts as f64 * pull).min(1.0),
                        )
                    });
                }
            }
        }
        let uniform = (experts as f64).ln();
        let sure = uniform * (0.95 - 0.5 * depth + 0.05 * noise.next());
        for (metric, unit, value, chance) in [
            ("router_entropy", "nats", sure, uniform),
            ("router_margin", "probability", 0.02 + 0.05 * depth * noise.next(), 0.0),
        ] {
            rows.push(MetricRow {
                layer: Some(layer),
                interval: Some((value * 0.98, value * 1.02)),
                chance: Some(chance),
                ..row(metric, unit, value)
            });
        }
        for rank in 0..shape.top_k {
            let value = if rank == 0 { 1.0 / k + (1.0 - 1.0 / k) * 0.5 * depth } else { 0.5 / k };
            rows.push(MetricRow {
                layer: Some(layer),
                index: Some(Index::Rank(rank)),
                chance: Some(1.0 / k),
                ..row("weight_by_rank", "ratio", value)
            });
        }
    }
    if shape.layers > 0 {
        rows.extend(curves(shape));
    }
    rows.push(row("mean_logprob", "nats", -3.21));
    for (phase, value) in [("prefill", 5210.0 * shape.speed), ("decode", 643.0 * shape.speed)] {
        rows.push(MetricRow {
            phase: Some(phase),
            interval: Some((value * 0.94, value * 1.05)),
            ..row("throughput", "tokens/s", value)
        });
    }
    let steps = steps(shape);
    let decode = shape.prompts * shape.generated;
    Analysis {
        name: shape.name.clone(),
        manifest: manifest(shape),
        partial: shape.partial,
        sequences: shape.prompts,
        tokens: decode + shape.prompts * 200,
        prefill_tokens: shape.prompts * 200,
        decode_tokens: decode,
        domains: shape.domains.clone(),
        domain_sequences: vec![1; shape.domains.len()],
        rows,
        absent: vec![],
        steps,
        structure: structure(shape),
        distinct_per_pass: distinct(shape),
        excerpt: excerpt(shape, &[" The", " router", "\n", " sends", " every", " token", "."]),
    }
}

/// Two sequences of 24 tokens per domain, all weights and entropies there, the texts in turn.
pub(super) fn excerpt(shape: &Shape, texts: &[&str]) -> Excerpt {
    const TOKENS: usize = 24;
    let mut random = Random::new(shape.seed + 11);
    let sequences: Vec<(&str, usize)> =
        shape.domains.iter().chain(&shape.domains).map(|name| (name.as_str(), TOKENS)).collect();
    let total = sequences.len() * TOKENS;
    let (experts, k) = (usize::from(shape.experts), usize::from(shape.top_k));
    let layers = (0..shape.layers).map(|layer| {
        let mut ids = Vec::with_capacity(total * k);
        for _ in 0..total {
            // Low numbers are more popular; ranks differ by a step that keeps them distinct.
            let first = (random.next().powi(2) * experts as f64) as usize;
            ids.extend((0..k).map(|rank| ((first + rank * (experts / k)) % experts) as u16));
        }
        LayerData {
            weights: Some((0..total * k).map(|n| 1.0 / (1.0 + (n % k) as f32)).collect()),
            entropy: Some((0..total).map(|_| random.next() as f32 * 3.0).collect()),
            ..LayerData::from_ids(layer, experts, k, ids)
        }
    });
    let layers = layers.collect();
    let mut data = RunData::from_ids(&shape.name, &sequences, layers).unwrap();
    data.tokens.texts = TokenTexts::collect((0..total).map(|n| texts[n % texts.len()]));
    data.tokens.logprob = Some(vec![-2.5; total]);
    Excerpt::new(&data)
}

/// Rows by size and by pair: caches, placement, pruning, distances between domains.
fn curves(shape: &Shape) -> Vec<MetricRow> {
    let mut rows = Vec::new();
    let experts = f64::from(shape.experts);
    let at = |metric, size: u32, value: f64, chance: f64| MetricRow {
        index: Some(Index::Size(size)),
        interval: Some((value * 0.96, (value * 1.03).min(1.0))),
        chance: Some(chance),
        ..row(metric, "ratio", value)
    };
    for size in 1..=u32::from(shape.experts) {
        let share = f64::from(size) / experts;
        for (metric, power) in [
            ("hit_rate_lru", 0.6),
            ("hit_rate_lfu", 0.55),
            ("hit_rate_static", 0.7),
            ("hit_rate_belady", 0.3),
            ("hit_rate_lru_warm", 0.5),
        ] {
            rows.push(MetricRow {
                phase: Some("decode"),
                ..at(metric, size, share.powf(power), share)
            });
        }
        for layer in (0..shape.layers).map(Some) {
            let depth = 1.0 + f64::from(layer.unwrap_or(0)) / f64::from(shape.layers);
            for (metric, power) in [
                ("pruned_traffic", 1.5),
                ("pruned_saliency", 2.5),
                ("pruned_traffic_ean", 1.8),
                ("pruned_saliency_ean", 2.4),
                ("pruned_traffic_frequency", 2.2),
                ("pruned_saliency_frequency", 2.3),
            ] {
                rows.push(MetricRow {
                    layer,
                    ..at(metric, size, share.powf(power * depth), share)
                });
            }
        }
    }
    let per_token = experts / f64::from(shape.top_k);
    for layer in 0..shape.layers {
        let depth = f64::from(layer + 1) / f64::from(shape.layers);
        let of_layer = |row: MetricRow| MetricRow { layer: Some(layer), ..row };
        for size in 1..=u32::from(shape.experts) {
            let share = f64::from(size) / experts;
            rows.push(of_layer(at("lorenz", size, share.powf(1.0 - 0.4 * depth), share)));
        }
        for n in 0..=6 {
            let size = 1 << n;
            let chance = experts * (1.0 - (1.0 - 1.0 / per_token).powi(size));
            for metric in ["working_set", "batch_working_set"] {
                let value = chance * (1.0 - 0.3 * depth);
                rows.push(of_layer(MetricRow {
                    interval: Some((value * 0.97, value * 1.02)),
                    ..at(metric, size as u32, value, chance)
                }));
            }
            let reuse = 1.0 / per_token + 0.4 * depth / (1.0 + f64::from(n));
            rows.push(of_layer(MetricRow {
                index: Some(Index::Lag(size as u32)),
                ..at("reuse", size as u32, reuse, 1.0 / per_token)
            }));
        }
        for (metric, unit, value, chance) in [
            ("vocabulary_specialisation", "ratio", 0.9 - 0.3 * depth, 0.3),
            ("coactivation_excess", "ratio", 0.2 + 0.1 * depth, 0.02),
            ("coactivation_lift", "ratio", 2.0, 0.9),
            ("path_information", "bits", 1.0 + depth, 0.05),
            ("tokens", "tokens", 3000.0, 0.0),
        ] {
            rows.push(of_layer(MetricRow { chance: Some(chance), ..row(metric, unit, value) }));
        }
    }
    for gpus in [2, 4, 8] {
        for (metric, excess) in
            [("gpu_imbalance", 0.2), ("gpu_imbalance_packed", 0.08), ("gpu_imbalance_eplb", 0.03)]
        {
            let value = 1.0 + excess * f64::from(gpus);
            rows.push(MetricRow {
                interval: Some((value * 0.96, value * 1.03)),
                chance: None,
                ..at(metric, gpus, value, 1.0)
            });
        }
    }
    let domains = shape.domains.len() as u16;
    for layer in (0..shape.layers).map(Some) {
        for (i, j) in (0..domains).flat_map(|i| (i + 1..domains).map(move |j| (i, j))) {
            rows.push(MetricRow {
                layer,
                index: Some(Index::Pair(i, j)),
                chance: Some(0.002),
                ..row("domain_divergence", "nats", 0.05 + 0.03 * f64::from((i * 7 + j * 3) % 11))
            });
        }
    }
    rows
}

/// Experts of the passes in `steps`: k in decode passes, more in prefill.
fn distinct(shape: &Shape) -> Vec<f32> {
    let mut random = Random::new(shape.seed + 3);
    let k = f32::from(shape.top_k);
    let pass = |pass: usize, random: &mut Random| match pass {
        0 => k + (f32::from(shape.experts) - k) * (0.5 + 0.5 * random.next() as f32),
        _ => k,
    };
    if shape.layers == 0 {
        return Vec::new();
    }
    (0..shape.prompts)
        .flat_map(|_| 0..=shape.generated)
        .map(|number| pass(number, &mut random))
        .collect()
}

/// Two teams of experts, paths to the expert of the same number, tokens with names that are long or short.
fn structure(shape: &Shape) -> Structure {
    let experts = usize::from(shape.experts);
    let cell = |i: usize, j: usize| match (i == j, i % 2 == j % 2) {
        (true, _) => 900,
        (false, true) => 120,
        (false, false) => 10 + ((i * 5 + j * 5) % 7) as u32,
    };
    let table = || (0..experts * experts).map(|at| cell(at / experts, at % experts)).collect();
    let specialist = |n: usize| Specialist {
        token_id: n as u32,
        text: [" the", "\n", "", "a token with a long name", "日本"][n % 5].into(),
        expert: (n % experts) as u16,
        occurrences: 10 + n as u32,
        share: 1.0 - 0.03 * n as f64,
        chance: 0.3,
    };
    let layers = 0..shape.layers;
    let upwards: Vec<u16> = (0..shape.experts).collect();
    let downwards: Vec<u16> = upwards.iter().rev().copied().collect();
    Structure {
        pruning: layers
            .clone()
            .map(|layer| Pruning {
                layer,
                reap: upwards.clone(),
                ean: downwards.clone(),
                frequency: upwards.clone(),
            })
            .collect(),
        coactivation: layers
            .clone()
            .map(|layer| Coactivation {
                layer,
                experts,
                top_k: usize::from(shape.top_k),
                tokens: 3000,
                counts: table(),
            })
            .collect(),
        transitions: layers
            .clone()
            .skip(1)
            .map(|next| Transitions {
                layer: next - 1,
                next,
                experts: [experts; 2],
                counts: table(),
            })
            .collect(),
        specialists: layers
            .map(|layer| Specialists {
                layer,
                input: (0..20).map(specialist).collect(),
                next: (3..9).map(specialist).collect(),
            })
            .collect(),
    }
}

fn steps(shape: &Shape) -> StepSeries {
    let mut random = Random::new(shape.seed + 5);
    let mut steps = StepSeries::default();
    for prompt in 0..shape.prompts {
        for pass in 0..=shape.generated {
            let prefill = pass == 0;
            let number = steps.step.len() as u32;
            let tail = if random.next() > 0.96 { 3.0 * random.next() } else { 0.0 };
            let base = if prefill { 38e6 * (0.5 + random.next()) } else { 1.55e6 };
            steps.step.push(number);
            steps.phase.push(if prefill { Phase::Prefill } else { Phase::Decode });
            steps.batch.push(1);
            steps.tokens.push(if prefill { 200 } else { 1 });
            steps.context.push(if prefill { 0 } else { 200 + pass as u32 });
            steps
                .duration_ns
                .push((base / shape.speed * (1.0 + 0.1 * random.next() + tail)) as u64);
            steps.device_ns.push(None);
            let pools = shape.device != DeviceType::Cpu;
            let used = (19u64 << 20) + (pass as u64) * 40_000;
            steps.bytes_in_use.push(pools.then_some(used));
            steps.bytes_reserved.push(pools.then_some((used / (4 << 20) + 2) * (4 << 20)));
            steps.rss_bytes.push(Some((61 << 20) + (prompt as u64) * 300_000));
        }
    }
    steps
}

fn manifest(shape: &Shape) -> Manifest {
    let layers = (0..shape.layers)
        .map(|layer| MoeLayer {
            layer,
            experts: shape.experts,
            top_k: shape.top_k,
            shared_experts: 0,
        })
        .collect();
    let software = shape.device == DeviceType::Software;
    Manifest {
        schema_version: SCHEMA_VERSION,
        run_id: format!("run-{}", shape.seed),
        created_at: "2026-02-03T04:05:06Z".into(),
        status: if shape.partial { Status::Partial } else { Status::Complete },
        moescope_version: "0.1.0".into(),
        git_commit: Some("0123abc".into()),
        command: ["moescope", "run", "datasets/tiny", "--prompts", "my prompts", "-o", "runs/a"]
            .map(String::from)
            .to_vec(),
        model: ModelInfo {
            name: shape.name.clone(),
            source: "datasets/tiny".into(),
            architecture: "Gemma4ForCausalLM".into(),
            config_hash: "c0ffee".into(),
            weights_hash: "deadbeef".into(),
            dtype: "f32".into(),
            quantisation: None,
            total_parameters: 4_770_000,
            active_parameters: 2_150_000,
            bytes: 19_080_000,
            weights: shape.weights,
            layers_kept: None,
            rumour: false,
            injected: None,
        },
        moe: MoeShape { layers },
        device: DeviceInfo {
            backend: if shape.device == DeviceType::Cpu { "flex" } else { "wgpu" }.into(),
            adapter: if software { "llvmpipe (LLVM 15.0.6)" } else { "AMD EPYC 7B13" }.into(),
            driver: software.then(|| "llvmpipe".into()),
            driver_version: software.then(|| "Mesa 22.3.6".into()),
            vendor_id: software.then_some(0x10005),
            device_id: software.then_some(0),
            device_type: shape.device,
            limits: BTreeMap::from([("max_buffer_size".into(), 1 << 31)]),
        },
        host: HostInfo {
            cpu: "AMD EPYC 7B13".into(),
            cores: 2,
            ram_bytes: 8 << 30,
            os: "Debian GNU/Linux 12".into(),
        },
        state: MachineState::default(),
        settings: Settings {
            batch: 1,
            seed: shape.seed,
            sampling: SamplingInfo { temperature: 0.0, top_k: 0, top_p: 1.0 },
            max_tokens: shape.generated as u32,
            moe_impl: "selected".into(),
            timing_mode: TimingMode::EndToEnd,
            saliency: false,
        },
        prompts_hash: "feed".into(),
        sequences: if shape.partial { shape.prompts as u32 + 9 } else { shape.prompts as u32 },
    }
}

/// Each run against the first, where the shapes allow it.
pub(super) fn comparisons(analyses: &[Analysis]) -> Vec<Comparison> {
    let Some((base, others)) = analyses.split_first() else { return vec![] };
    let Some(before) = base.matrix("utilisation") else { return vec![] };
    let mut comparisons = Vec::new();
    for (n, other) in others.iter().enumerate() {
        let mut rows = Vec::new();
        if base.manifest.moe == other.manifest.moe
            && let Some(after) = other.matrix("utilisation")
        {
            for ((layer, a), b) in before.layers.iter().zip(&before.values).zip(&after.values) {
                for (expert, (a, b)) in a.iter().zip(b).enumerate() {
                    let value = b - a;
                    rows.push(MetricRow {
                        layer: Some(*layer),
                        index: Some(Index::Expert(expert as u16)),
                        interval: Some((value - 0.02, value + 0.02)),
                        chance: Some(0.0),
                        ..row("utilisation_difference", "ratio", value)
                    });
                }
            }
            for (metric, value) in [("routing_overlap", 0.873), ("same_experts", 0.412)] {
                for layer in before.layers.iter().copied().map(Some).chain([None]) {
                    let value = value - 0.02 * f64::from(layer.unwrap_or(0) % 7) - 0.01 * n as f64;
                    rows.push(MetricRow {
                        layer,
                        interval: Some((value - 0.01, value + 0.012)),
                        chance: Some(0.125),
                        ..row(metric, "ratio", value)
                    });
                }
            }
        }
        comparisons.push(Comparison {
            base: 0,
            other: n + 1,
            base_name: base.name.clone(),
            other_name: other.name.clone(),
            utilisation: None,
            token_wise: TokenWise::Compared { tokens: 2592, left_out: 12 },
            missing: Vec::new(),
            rows,
        });
    }
    comparisons
}

pub(super) fn findings(analyses: &[Analysis]) -> Vec<Finding> {
    let first = &analyses[0].name;
    let finding = |headline: String, detail: &str, figure, caveat| Finding {
        headline,
        detail: detail.into(),
        figure,
        effect: 1.0,
        caveat,
    };
    let mut findings = vec![
        finding(
            format!("Expert 5 of layer 1 takes 2.31 times its share of the tokens in {first}"),
            "By chance the busiest of 8 experts takes 1.08 times its share (95 % interval of the value \
             2.2 to 2.4, 2,592 tokens).",
            Some("utilisation"),
            false,
        ),
        finding(
            "Decode is 1.7 times as fast".into(),
            "643 tokens/s against 378 tokens/s.",
            Some("throughput"),
            false,
        ),
        finding("No figure shows this".into(), "A plain fact.", None, false),
    ];
    if analyses.iter().any(|analysis| analysis.partial) {
        let caveat = "A run is partial: 12 of 21 prompts were recorded";
        findings.insert(0, finding(caveat.into(), "It was stopped.", None, true));
    }
    findings
}
