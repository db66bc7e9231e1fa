//! A run written by hand, replayed on a model with other ideas.

use std::path::Path;

use burn::tensor::{DType as BurnDType, Tensor};
use moescope_model::{
    Checkpoint, DType, KvCache, LoadOptions, LogitsFor, MoeImpl, MoeModel, Unobserved, load,
};
use moescope_trace::{Phase, RoutingColumns, RunWriter, TokenColumns, manifest::Manifest};
use serde_json::json;
use tempfile::TempDir;

use super::*;

fn model(fixture: &str) -> Box<dyn MoeModel> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../moescope-model/tests/fixtures");
    let checkpoint = Checkpoint::open(&folder.join(fixture)).unwrap();
    let device = Device::flex();
    let (dtype, moe_impl) = (DType::F32, MoeImpl::Selected);
    let options = LoadOptions { device: &device, dtype, moe_impl, progress: &|_, _| {} };
    load(&checkpoint, &options).unwrap().0
}

/// MoE layers of the run: those of a model, and one beyond.
fn layers(spec: &ModelSpec) -> Vec<MoeLayer> {
    let layer = |l: &MoeLayerSpec, layer| MoeLayer {
        layer,
        experts: l.experts,
        top_k: l.top_k,
        shared_experts: l.shared_experts,
    };
    let last = spec.moe.last().unwrap();
    let own = spec.moe.iter().map(|l| layer(l, l.layer));
    own.chain([layer(last, last.layer + 1)]).collect()
}

/// A manifest of a run over a model of these layers.
pub(crate) fn manifest(layers: &[MoeLayer]) -> Manifest {
    serde_json::from_value(json!({
        "schema_version": 1, "run_id": "r", "created_at": "2026-01-01T00:00:00Z", "status": "partial",
        "moescope_version": "0", "git_commit": null, "command": [],
        "model": {
            "name": "m", "source": "m", "architecture": "A", "config_hash": "c", "weights_hash": "w",
            "dtype": "f32", "quantisation": null, "total_parameters": 1, "active_parameters": 1,
            "bytes": 4, "weights": "trained",
        },
        "moe": {"layers": layers},
        "device": {
            "backend": "flex", "adapter": "cpu", "driver": null, "driver_version": null,
            "vendor_id": null, "device_id": null, "device_type": "cpu",
        },
        "host": {"cpu": "cpu", "cores": 1, "ram_bytes": 1, "os": "os"},
        "settings": {
            "batch": 1, "seed": 0, "sampling": {"temperature": 0.0, "top_k": 0, "top_p": 1.0},
            "max_tokens": 0, "moe_impl": "selected", "timing_mode": "end-to-end",
        },
        "prompts_hash": "p", "sequences": 2,
    }))
    .unwrap()
}

const LENGTHS: [u32; 2] = [5, 7];

/// What the run says of a token: no router would choose so.
fn chosen(sequence: u32, position: u32, layer: &MoeLayer) -> Vec<u16> {
    let from = (sequence * 3 + position * 2) as u16 + layer.layer;
    (0..layer.top_k).map(|rank| (from + 3 * rank) % layer.experts).collect()
}

/// A run of two sequences, the later one first, layers of a token apart.
fn write(layers: &[MoeLayer]) -> (TempDir, Run) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("run");
    let mut writer = RunWriter::create(&path, manifest(layers), false).unwrap();
    let mut tokens = TokenColumns::default();
    let mut routing = RoutingColumns {
        top_k: layers.first().map_or(0, |l| usize::from(l.top_k)),
        ..RoutingColumns::default()
    };
    for sequence in [1, 0] {
        for position in 0..LENGTHS[sequence as usize] {
            tokens.sequence.push(sequence);
            tokens.position.push(position);
            tokens.step.push(0);
            tokens.phase.push(Phase::Prefill);
            tokens.token_id.push(100 * sequence + position);
            tokens.text.push("t".into());
            tokens.domain.push("d".into());
            tokens.logprob.push(None);
        }
        for layer in layers {
            for position in 0..LENGTHS[sequence as usize] {
                routing.sequence.push(sequence);
                routing.position.push(position);
                routing.layer.push(layer.layer);
                routing.experts.extend(chosen(sequence, position, layer));
                routing.weights.extend(vec![0.5; usize::from(layer.top_k)]);
                routing.entropy.push(1.0);
                routing.margin.push(0.1);
            }
        }
    }
    writer.write_tokens(&tokens).unwrap();
    if !layers.is_empty() {
        writer.write_routing(&routing).unwrap();
    }
    writer.finish().unwrap();
    let run = Run::open(&path).unwrap();
    (dir, run)
}

/// Layer and experts of every decision shown.
#[derive(Default)]
struct Decisions(Vec<(u16, Vec<u16>)>);

impl Observer for Decisions {
    fn routed(&mut self, routing: Routing) {
        let ids = routing.experts.into_data_dtype(BurnDType::I32).try_into_vec::<i32>().unwrap();
        self.0.push((routing.layer, ids.into_iter().map(|id| id as u16).collect()));
    }
}

fn input(tokens: &[u32], batch: usize) -> Tensor<2, burn::tensor::Int> {
    let ids = crate::recorder::ids(tokens, &Device::flex());
    ids.reshape([batch, tokens.len() / batch])
}

#[test]
fn rows_are_in_order_of_sequences_and_positions() {
    let model = model("qwen3-moe");
    let layers = layers(model.spec());
    let recorded = Recorded::read(&write(&layers).1).unwrap();
    let tokens: Vec<u32> = (0..5).chain(100..107).collect();
    assert_eq!(recorded.tokens(), tokens);
    for (slot, layer) in layers.iter().enumerate() {
        let want: Vec<u16> = [0, 1]
            .into_iter()
            .flat_map(|s| (0..LENGTHS[s as usize]).flat_map(move |p| chosen(s, p, layer)))
            .collect();
        assert_eq!(recorded.experts[slot], want);
    }
}

/// Two sequences at once, prefill then decode: what is shown is what was recorded.
#[test]
fn a_model_routes_like_the_run() {
    let model = model("qwen3-moe");
    let spec = model.spec();
    let recorded = Recorded::read(&write(&layers(spec)).1).unwrap();
    recorded.check(spec).unwrap();
    // Rows of the two sequences.
    let traces = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]];
    let mut passes = vec![traces.iter().flat_map(|t| &t[..3]).copied().collect::<Vec<_>>()];
    passes.extend((3..5).map(|i| traces.iter().map(|t| t[i]).collect::<Vec<_>>()));
    let replay = Replay::new(&recorded, spec, model.device(), &passes).unwrap();

    let mut seen = Decisions::default();
    let mut cache = KvCache::new(spec, 2, 6, model.device()).unwrap();
    let mut observer = replay.from(0, &mut seen);
    for pass in &passes {
        let tokens: Vec<u32> = pass.iter().map(|&row| recorded.tokens()[row]).collect();
        let ids = input(&tokens, 2);
        model.forward(ids, &mut cache, &mut observer, LogitsFor::Last).unwrap();
    }
    // After the last pass the router is on its own.
    model.forward(input(&[1, 2], 2), &mut cache, &mut observer, LogitsFor::Last).unwrap();

    let place = |row: usize| if row < 5 { (0, row as u32) } else { (1, row as u32 - 5) };
    let mut shown = seen.0.iter();
    for pass in &passes {
        for layer in layers(spec).iter().take(spec.moe.len()) {
            let want = pass.iter().map(|&row| place(row)).flat_map(|(s, p)| chosen(s, p, layer));
            assert_eq!(shown.next(), Some(&(layer.layer, want.collect())));
        }
    }
    assert_eq!(shown.len(), spec.moe.len());

    // From a later pass on.
    let mut seen = Decisions::default();
    let mut cache = KvCache::new(spec, 2, 6, model.device()).unwrap();
    let tokens: Vec<u32> = passes[2].iter().map(|&row| recorded.tokens()[row]).collect();
    let mut observer = replay.from(2, &mut seen);
    model.forward(input(&tokens, 2), &mut cache, &mut observer, LogitsFor::Last).unwrap();
    let first = &layers(spec)[0];
    let want = passes[2].iter().map(|&row| place(row)).flat_map(|(s, p)| chosen(s, p, first));
    assert_eq!(seen.0[0].1, want.collect::<Vec<_>>());
}

fn says<T: std::fmt::Debug>(result: Result<T>, words: &[&str]) {
    let message = result.unwrap_err().to_string();
    for word in words {
        assert!(message.contains(word), "{message}: expected {word:?}");
    }
}

#[test]
fn runs_that_can_not_be_replayed_are_refused() {
    let model = model("qwen3-moe");
    let spec = model.spec();
    let own = layers(spec);
    says(Recorded::read(&write(&[]).1), &["run", "dense"]);

    let (last, first) = (spec.moe.len() - 1, own[0]);
    let without: Vec<MoeLayer> = own[..last].to_vec();
    let recorded = Recorded::read(&write(&without).1).unwrap();
    says(recorded.check(spec), &["no such MoE layer", "same model"]);

    let mut more = own.clone();
    more[0].experts += 1;
    let recorded = Recorded::read(&write(&more).1).unwrap();
    let (found, wanted) = (format!("of {}", first.experts + 1), format!("of {}", first.experts));
    says(recorded.check(spec), &["layer 0", &found, &wanted]);

    let recorded = Recorded::read(&write(&own).1).unwrap();
    says(Replay::new(&recorded, spec, model.device(), &[vec![0, 12]]), &["token 12", "12"]);
    says(Replay::new(&recorded, spec, model.device(), &[vec![]]), &["found 0"]);

    // A token beyond the vocabulary.
    let small = ModelSpec { vocab: 106, ..spec.clone() };
    says(recorded.check(&small), &["106", "vocabulary"]);

    // The manifest's k is not that of the rows.
    let (dir, _) = write(&own);
    let file = dir.path().join("run/manifest.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    manifest["moe"]["layers"][1]["top_k"] = json!(3);
    std::fs::write(&file, manifest.to_string()).unwrap();
    let run = Run::open(dir.path().join("run")).unwrap();
    says(Recorded::read(&run), &["layer 1", "says 3"]);

    // A pass of another size than was prepared is refused by the model itself.
    let replay = Replay::new(&recorded, spec, model.device(), &[vec![0, 1]]).unwrap();
    let mut cache = KvCache::new(spec, 1, 6, model.device()).unwrap();
    let (mut nobody, ids) = (Unobserved, input(&[1, 2, 3], 1));
    let result = model.forward(ids, &mut cache, &mut replay.from(0, &mut nobody), LogitsFor::Last);
    says(result.map(|_| ()).map_err(RecordError::from), &["made for 2 tokens", "3 tokens"]);
}
