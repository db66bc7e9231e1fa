//! `moescope simulate`.

mod text;

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use moescope_analysis::simulate::{
    CacheCurve, PrefetchPoint, cache_curves,
    placement::{Cluster, Imbalance, Placement, imbalances},
    prefetch_points,
    speed::{Machine, ModelBytes, Speed},
};
use moescope_analysis::{MetricRow, Options, RunData, Study};
use moescope_trace::{Phase, Run};
use serde_json::{Value, json};

use crate::{
    args::Format,
    quantity::{Bandwidth, Bytes, Seconds},
    ui,
};

/// What a run's routing would mean on another machine: expert caches in a GPU's memory, predicted speed,
/// next-layer prefetch, placement over several GPUs.
#[derive(Args)]
pub(crate) struct Simulate {
    /// Run directory.
    run: PathBuf,
    /// Memory of the GPU.
    #[arg(long, default_value = "8GiB", value_name = "BYTES")]
    vram: Bytes,
    /// Of which not for weights: key/value cache, activations, the desktop.
    #[arg(long, default_value = "0B", value_name = "BYTES")]
    reserve: Bytes,
    /// Bandwidth from the host's memory to the GPU; the default is what PCIe 4.0 x16 reaches.
    #[arg(long, default_value = "25GB/s", value_name = "BYTES/s")]
    link: Bandwidth,
    /// Time before a transfer begins.
    #[arg(long, default_value = "10us", value_name = "TIME")]
    latency: Seconds,
    /// Bandwidth at which the GPU reads its own memory.
    #[arg(long, default_value = "400GB/s", value_name = "BYTES/s")]
    device_bandwidth: Bandwidth,
    /// Bandwidth at which the host's processor reads its memory: what running experts there would give.
    #[arg(long, value_name = "BYTES/s")]
    host_bandwidth: Option<Bandwidth>,
    /// Speed to find the hit rate for.
    #[arg(long, value_name = "TOKENS/s")]
    target: Option<f64>,
    /// Bytes of one routed expert, such as those of a quantised model; by default as the run had them.
    #[arg(long, value_name = "BYTES")]
    expert_bytes: Option<Bytes>,
    /// Bytes that every token reads beside its experts; by default as the run had them.
    #[arg(long, value_name = "BYTES")]
    dense_bytes: Option<Bytes>,
    /// Place the experts on so many GPUs.
    #[arg(long, value_name = "G")]
    gpus: Option<usize>,
    /// Redundant experts per layer; experts and redundant ones must be a multiple of the GPUs.
    #[arg(long, value_name = "R", default_value_t = 0, requires = "gpus")]
    redundant: usize,
    /// Groups the router picks from, which stay on one node.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "gpus")]
    groups: usize,
    /// Nodes the GPUs are in.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "gpus")]
    nodes: usize,
    /// How results are printed; json and csv hold every cache size.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// File to write; - is stdout.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
}

/// Everything that was simulated.
struct Answer<'a> {
    study: &'a Study<'a>,
    /// Which tokens the hit rates are over; `None` is all.
    phase: Option<Phase>,
    curves: Vec<CacheCurve>,
    prefetches: Vec<PrefetchPoint>,
    /// `None` where the run does not say how large its model is.
    speed: Option<(ModelBytes, Machine, Speed)>,
    target: Option<f64>,
    placement: Option<Placed>,
}

/// Experts on several GPUs.
struct Placed {
    cluster: Cluster,
    /// In order, without copies.
    before: Vec<Imbalance>,
    /// Balanced.
    after: Vec<Imbalance>,
}

impl Simulate {
    pub(crate) fn execute(self) -> anyhow::Result<()> {
        let data = RunData::load(&Run::open(&self.run)?)?;
        if data.layers.is_empty() || data.is_empty() {
            bail!(
                "{}: expected a run with routing; found {} MoE layers and {} tokens. A dense model \
                 has no experts to simulate",
                self.run.display(),
                data.layers.len(),
                data.len()
            );
        }
        let options = Options::default();
        let study = Study::new(&data, &options);
        let placement = self.place(&study)?;
        let model = self.model(&data);
        if model.is_none() {
            ui::note(
                "the run does not say how large its model is: hit rates only; give --expert-bytes and \
                 --dense-bytes for predicted speeds",
            );
        }
        let (phase, curves) = cache_curves(&study);
        let machine = self.machine();
        let speed = model.map(|model| (model, machine, Speed::new(model, machine)));
        let prefetches = prefetch_points(&study);
        let answer = Answer {
            study: &study,
            phase,
            curves,
            prefetches,
            speed,
            target: self.target,
            placement,
        };
        let result = match self.format {
            Format::Text => text::text(&answer),
            Format::Json => serde_json::to_string_pretty(&answer.document())? + "\n",
            Format::Csv => {
                let labels = answer.labels().join("; ");
                let rows = answer.rows();
                ui::csv(&HEADER, &rows.iter().map(|row| row.cells(&labels)).collect::<Vec<_>>())
            }
        };
        ui::deliver(result.as_bytes(), &self.output)
    }

    fn machine(&self) -> Machine {
        Machine {
            vram: self.vram.0,
            reserved: self.reserve.0,
            device_bandwidth: self.device_bandwidth.0,
            link_bandwidth: self.link.0,
            link_latency: self.latency.0,
            host_bandwidth: self.host_bandwidth.map(|bandwidth| bandwidth.0),
        }
    }

    /// The model's bytes: the run's, where options do not say otherwise.
    fn model(&self, data: &RunData) -> Option<ModelBytes> {
        let recorded = ModelBytes::of(&data.manifest);
        let given = |option: Option<Bytes>| option.map(|bytes| bytes.0);
        let expert = given(self.expert_bytes).or_else(|| Some(recorded?.expert))?;
        let dense = given(self.dense_bytes).or_else(|| Some(recorded?.dense))?;
        Some(ModelBytes {
            expert,
            dense,
            experts: data.layers.iter().map(|layer| layer.experts).sum(),
            selected: data.layers.iter().map(|layer| layer.top_k).sum(),
            layers: data.layers.len(),
        })
    }

    fn place(&self, study: &Study<'_>) -> anyhow::Result<Option<Placed>> {
        let Some(gpus) = self.gpus else {
            return Ok(None);
        };
        let Self { redundant, groups, nodes, .. } = *self;
        let cluster = Cluster { gpus, redundant, groups, nodes };
        for layer in &study.data.layers {
            cluster
                .check(layer.experts)
                .with_context(|| format!("--gpus, layer {}", layer.layer))?;
        }
        let before = imbalances(study, &[gpus], |loads, gpus| {
            Some(Placement::contiguous(loads.len(), gpus))
        });
        let after =
            imbalances(study, &[gpus], |loads, _| Placement::balanced(loads, &cluster).ok());
        Ok(Some(Placed { cluster, before, after }))
    }
}

/// One policy at one cache size.
struct Row<'a> {
    policy: &'static str,
    shared: bool,
    experts: usize,
    share: f64,
    row: &'a MetricRow,
    /// Predicted tokens per second at the hit rate and at both ends of its interval.
    predicted: Option<[Option<f64>; 3]>,
    /// Bytes of the cached experts and the dense part.
    bytes: Option<f64>,
    fits: Option<bool>,
}

const HEADER: [&str; 14] = [
    "policy",
    "shared",
    "experts_cached",
    "share_cached",
    "hit_rate",
    "low",
    "high",
    "chance",
    "predicted_tokens_per_second",
    "predicted_low",
    "predicted_high",
    "bytes_on_device",
    "fits",
    "labels",
];

impl Row<'_> {
    fn cells(&self, labels: &str) -> Vec<String> {
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        let predicted = |at: usize| number(self.predicted.and_then(|predicted| predicted[at]));
        vec![
            self.policy.to_owned(),
            self.shared.to_string(),
            self.experts.to_string(),
            self.share.to_string(),
            self.row.value.to_string(),
            number(self.row.interval.map(|(low, _)| low)),
            number(self.row.interval.map(|(_, high)| high)),
            number(self.row.chance),
            predicted(0),
            predicted(1),
            predicted(2),
            number(self.bytes),
            self.fits.map_or_else(String::new, |fits| fits.to_string()),
            labels.to_owned(),
        ]
    }

    fn object(&self) -> Value {
        json!({
            "policy": self.policy,
            "shared": self.shared,
            "experts_cached": self.experts,
            "share_cached": self.share,
            "hit_rate": self.row.value,
            "low": self.row.interval.map(|(low, _)| low),
            "high": self.row.interval.map(|(_, high)| high),
            "chance": self.row.chance,
            "predicted_tokens_per_second": self.predicted.and_then(|predicted| predicted[0]),
            "predicted_low": self.predicted.and_then(|predicted| predicted[1]),
            "predicted_high": self.predicted.and_then(|predicted| predicted[2]),
            "bytes_on_device": self.bytes,
            "fits": self.fits,
        })
    }
}

impl Answer<'_> {
    /// Experts over all layers, E L.
    fn experts(&self) -> usize {
        self.study.data.layers.iter().map(|layer| layer.experts).sum()
    }

    /// Predicted tokens per second at a hit rate and at both ends of its interval.
    fn predict(&self, row: &MetricRow) -> Option<[Option<f64>; 3]> {
        let (_, _, speed) = self.speed.as_ref()?;
        let of = |hit_rate: f64| speed.tokens_per_second(hit_rate);
        let interval = row.interval;
        Some([
            Some(of(row.value)),
            interval.map(|(low, _)| of(low)),
            interval.map(|(_, high)| of(high)),
        ])
    }

    fn rows(&self) -> Vec<Row<'_>> {
        let total = self.experts();
        let fitting = self.speed.as_ref().map(|(_, _, speed)| speed.experts_that_fit());
        let points = self.curves.iter().flat_map(|curve| {
            curve.points.iter().map(move |point| (curve.metric, curve.shared, point))
        });
        points
            .map(|(policy, shared, (experts, row))| Row {
                policy,
                shared,
                experts: (*experts).min(total),
                share: (*experts).min(total) as f64 / total as f64,
                row,
                predicted: self.predict(row),
                bytes: self
                    .speed
                    .as_ref()
                    .map(|(model, ..)| model.dense + model.expert * *experts as f64),
                fits: fitting.map(|fitting| fitting.is_some_and(|fitting| *experts <= fitting)),
            })
            .collect()
    }

    /// How the numbers of this run must be labelled.
    fn labels(&self) -> Vec<&'static str> {
        self.study.data.manifest.labels(self.study.data.partial)
    }

    fn document(&self) -> Value {
        let speed = self.speed.as_ref().map(|(model, machine, speed)| {
            json!({
                "model": {
                    "expert_bytes": model.expert,
                    "dense_bytes": model.dense,
                    "experts": model.experts,
                    "experts_per_token": model.selected,
                },
                "machine": {
                    "vram_bytes": machine.vram,
                    "reserved_bytes": machine.reserved,
                    "device_bandwidth": machine.device_bandwidth,
                    "link_bandwidth": machine.link_bandwidth,
                    "link_latency_seconds": machine.link_latency,
                    "host_bandwidth": machine.host_bandwidth,
                },
                "experts_that_fit": speed.experts_that_fit(),
                "predicted_without_misses": speed.tokens_per_second(1.0),
                "predicted_without_hits": speed.tokens_per_second(0.0),
                "predicted_experts_on_host": speed.on_host(),
                "break_even_hit_rate": speed.break_even(),
                "hit_rate_to_beat_host": speed.hit_rate_to_beat_host(),
                "target_tokens_per_second": self.target,
                "hit_rate_for_target": self.target.and_then(|target| speed.hit_rate_for(target)),
            })
        });
        let imbalance = |found: &Imbalance| {
            json!({
                "layer": found.layer,
                "max_over_mean": found.value,
                "low": found.interval.map(|(low, _)| low),
                "high": found.interval.map(|(_, high)| high),
                "chance": found.chance,
            })
        };
        let placement = self.placement.as_ref().map(|placed| {
            json!({
                "gpus": placed.cluster.gpus,
                "redundant": placed.cluster.redundant,
                "groups": placed.cluster.groups,
                "nodes": placed.cluster.nodes,
                "before": placed.before.iter().map(imbalance).collect::<Vec<_>>(),
                "after": placed.after.iter().map(imbalance).collect::<Vec<_>>(),
            })
        });
        let prefetch = |point: &PrefetchPoint| {
            json!({
                "experts_brought": point.brought,
                "hit_rate": point.hit_rate.value,
                "low": point.hit_rate.interval.map(|(low, _)| low),
                "high": point.hit_rate.interval.map(|(_, high)| high),
                "chance": point.hit_rate.chance,
                "wasted": point.wasted.value,
            })
        };
        json!({
            "run": self.study.data.name,
            "labels": self.labels(),
            "tokens": self.phase.map_or("all", Phase::as_str),
            "predicted": speed,
            "caches": self.rows().iter().map(Row::object).collect::<Vec<_>>(),
            "prefetch": self.prefetches.iter().map(prefetch).collect::<Vec<_>>(),
            "placement": placement,
        })
    }
}
