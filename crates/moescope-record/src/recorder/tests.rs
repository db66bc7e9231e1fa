//! Scoring a prompt: in how many rows of logits at once.

use std::{path::Path, sync::Mutex};

use burn::tensor::DeviceKind;
use moescope_model::{
    Checkpoint, DType as WeightType, Demand, KvCache, LoadOptions, LogitsFor, ModelSpec, MoeImpl,
    MoeLayerSpec,
    capacity::{Capacity, Room},
    load,
};
use moescope_trace::{Run, RunWriter, manifest::MoeLayer};
use serde_json::{Value, json};

use super::*;
use crate::{
    Sampling,
    replay::tests::manifest,
    run::{Encoded, RunOptions, run},
};

const VOCAB: usize = 262_144;
/// More than a software adapter scores at once, which takes a while on it.
const TOKENS: usize = 131;

/// A model that remembers of how many rows it was asked the logits at once.
struct Counted {
    model: Box<dyn MoeModel>,
    rows: Mutex<Vec<usize>>,
}

impl MoeModel for Counted {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    fn device(&self) -> &Device {
        self.model.device()
    }

    fn forward(
        &self,
        ids: Tensor<2, Int>,
        cache: &mut KvCache,
        observer: &mut dyn Observer,
        logits: LogitsFor,
    ) -> moescope_model::Result<Tensor<2>> {
        self.model.forward(ids, cache, observer, logits)
    }

    fn head(&self, normed: Tensor<2>) -> Tensor<2> {
        self.rows.lock().unwrap().push(normed.dims()[0]);
        self.model.head(normed)
    }
}

/// One layer with random weights and the vocabulary of Gemma 4.
fn model(device: &Device) -> Counted {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../moescope-model/tests/fixtures");
    let config = std::fs::read(fixtures.join("qwen3-moe/config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    for (key, value) in [
        ("vocab_size", VOCAB),
        ("num_hidden_layers", 1),
        ("hidden_size", 16),
        ("max_position_embeddings", 1024),
    ] {
        config[key] = json!(value);
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let mut checkpoint = Checkpoint::open_config(dir.path()).unwrap();
    checkpoint.randomise(1);
    let (dtype, moe_impl) = (WeightType::F32, MoeImpl::Selected);
    let options = LoadOptions { device, dtype, moe_impl, progress: &|_, _| {} };
    Counted { model: load(&checkpoint, &options).unwrap().0, rows: Mutex::default() }
}

fn layer(spec: &MoeLayerSpec) -> MoeLayer {
    let MoeLayerSpec { layer, experts, top_k, shared_experts } = *spec;
    MoeLayer { layer, experts, top_k, shared_experts }
}

/// No more rows at once than what is checked before a run counts, and no tensor that the device can't bind.
#[test]
fn prompts_are_scored_in_the_rows_that_were_counted() {
    let mut scores = Vec::new();
    for device in [Device::flex(), Device::wgpu(DeviceKind::DefaultDevice)] {
        let model = model(&device);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let layers: Vec<MoeLayer> = model.spec().moe.iter().map(layer).collect();
        let writer = RunWriter::create(&path, manifest(&layers), false).unwrap();
        let tokens: Vec<u32> = (0..TOKENS).map(|i| (i * 7919 % VOCAB) as u32).collect();
        let prompt = Encoded { id: "a".into(), domain: "d".into(), tokens };
        let options = RunOptions {
            max_tokens: 1,
            sampling: Sampling::GREEDY,
            seed: 0,
            eos: Vec::new(),
            keep: Keep::default(),
            profile: false,
        };
        let writer = BackgroundWriter::spawn(writer).unwrap();
        let text = Text::bytes(dir.path());
        let (_, writer) = run(&model, &text, &[prompt], &options, writer, &mut |_| {}).unwrap();
        writer.finish().unwrap();

        let limit = capacity::tensor_limit(&device);
        let counted = scored_rows(VOCAB, TOKENS, limit);
        let rows = model.rows.into_inner().unwrap();
        assert_eq!(rows.iter().max(), Some(&counted), "{rows:?} with {limit:?}");
        assert_eq!(rows.iter().sum::<usize>(), TOKENS - 1);
        let room = Room {
            dtype: WeightType::F32,
            demand: Demand { batch: 1, context: TOKENS + 1, prompt: TOKENS, scored: counted },
            on_gpu: limit.is_some(),
        };
        let capacity = Capacity { tensor: limit, ..Capacity::default() };
        room.check(model.model.spec(), &capacity).unwrap();

        let logprobs = Run::open(&path).unwrap().read().unwrap().tokens.logprob;
        let logprobs: Vec<f32> = logprobs.into_iter().flatten().collect();
        assert_eq!(logprobs.len(), TOKENS);
        scores.push(logprobs);
    }
    for (flex, wgpu) in scores[0].iter().zip(&scores[1]) {
        assert!((flex - wgpu).abs() < 2e-3, "{flex} {wgpu}");
    }
}

#[test]
fn rows_follow_the_vocabulary_and_the_largest_binding() {
    const MIB: u64 = 1 << 20;
    // 256 MiB of logits where nothing limits them.
    assert_eq!(scored_rows(VOCAB, 1000, None), 256);
    assert_eq!(scored_rows(VOCAB, 1000, Some(2048 * MIB)), 256);
    assert_eq!(scored_rows(VOCAB, 1000, Some(128 * MIB)), 128);
    assert_eq!(scored_rows(VOCAB, 1000, Some(1)), 1);
    // No more than the prompt has, and the last token has no next one to score.
    assert_eq!(scored_rows(VOCAB, 100, None), 99);
    assert_eq!(scored_rows(VOCAB, 1, None), 0);
    assert_eq!(scored_rows(4096, 10_000, None), 512);
}

/// What no router of numbers can say is an error that names the layer, on any device.
#[test]
fn a_router_without_numbers_is_refused() {
    let layout = Layout { experts: 4, top_k: 2, layers: vec![7] };
    let step = Step {
        sequence: 0,
        domain: "d",
        phase: Phase::Prefill,
        tokens: &[1],
        context: 0,
        first_logprob: None,
        duration_ns: 1,
        device_ns: None,
    };
    let read = |row: [f32; 6]| {
        let mut rows = empty_routing(Keep::default());
        let data = TensorData::new(row.to_vec(), [1, 6]);
        layout.read(&mut std::iter::once(data), &step, &mut rows).map(|()| rows)
    };
    let rows = read([3.0, 0.0, 0.75, 0.25, 0.5, 0.1]).unwrap();
    assert_eq!((rows.experts, rows.weights), (vec![3, 0], vec![0.75, 0.25]));
    assert_eq!((rows.entropy, rows.margin), (vec![0.5], vec![0.1]));
    for row in [
        [4.0, 0.0, 0.75, 0.25, 0.5, 0.1],
        [-1.0, 0.0, 0.75, 0.25, 0.5, 0.1],
        [f32::NAN, 0.0, 0.75, 0.25, 0.5, 0.1],
        [3.0, 0.0, f32::NAN, 0.25, 0.5, 0.1],
    ] {
        let error = read(row).unwrap_err();
        assert!(matches!(error, RecordError::NoExpert { layer: 7 }), "{error}");
    }
}
