//! Prefill and decode of the bundled model on `flex`, with and without a recorder.
//!
//! Elements are tokens. Recording must cost at most 5 % of tokens per second.

use std::{hint::black_box, path::Path, time::Duration};

use burn::tensor::Device;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use moescope_model::{Checkpoint, DType, KvCache, LoadOptions, MoeImpl, MoeModel, device, load};
use moescope_record::{
    RunOptions, Sampling, Text,
    conditions::Conditions,
    generate::{Request, generate},
    recorder::Recorder,
    run::Encoded,
    sampling::Sampler,
};
use moescope_trace::{BackgroundWriter, RunWriter};

fn tiny() -> Checkpoint {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/tiny-gemma4-moe");
    Checkpoint::open(&path).expect("the bundled model is in the checkout")
}

fn model(checkpoint: &Checkpoint, moe_impl: MoeImpl) -> Box<dyn MoeModel> {
    let device = Device::flex();
    let options =
        LoadOptions { device: &device, dtype: DType::F32, moe_impl, progress: &|_, _| {} };
    load(checkpoint, &options).expect("the bundled model loads").0
}

/// Tokens of real text: routing depends on the input.
fn tokens(text: &Text, n: usize) -> Vec<u32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/prompts");
    let prompts = moescope_record::prompts::read(&path).expect("the prompts are in the checkout");
    let mut tokens = Vec::new();
    for prompt in prompts {
        if let moescope_record::PromptInput::Text(string) = prompt.input {
            tokens.extend(text.encode(&string).expect("prompts encode"));
        }
        if tokens.len() >= n {
            break;
        }
    }
    tokens.truncate(n);
    tokens
}

struct Case<'a> {
    model: &'a dyn MoeModel,
    prompt: &'a [u32],
    max_tokens: usize,
}

impl Case<'_> {
    /// Time of the passes alone, as tokens per second are defined.
    fn passes(&self, cache: &mut KvCache, recorder: Option<&mut Recorder<'_>>) -> Duration {
        let request = Request {
            sequence: 0,
            domain: "bench",
            prompt: self.prompt,
            max_tokens: self.max_tokens,
            eos: &[],
            profile: false,
        };
        let mut sampler = Sampler::new(Sampling::GREEDY, 0, 0);
        let done = generate(self.model, cache, &request, &mut sampler, recorder);
        let done = black_box(done.expect("the bundled model runs"));
        let ns = match self.max_tokens {
            0 => done.prefill_ns,
            _ => done.decode_ns.iter().sum(),
        };
        Duration::from_nanos(ns)
    }
}

fn writer(checkpoint: &Checkpoint, model: &dyn MoeModel, dir: &Path) -> BackgroundWriter {
    let (adapter, _) = device::choose("flex".parse().expect("flex is a device")).expect("flex");
    let options = RunOptions {
        max_tokens: 0,
        sampling: Sampling::GREEDY,
        seed: 0,
        eos: Vec::new(),
        keep_probs: false,
        profile: false,
    };
    let prompts = [Encoded { id: "bench".into(), domain: "bench".into(), tokens: vec![0] }];
    let manifest = Conditions {
        name: "bench",
        source: "bench",
        checkpoint,
        spec: model.spec(),
        weights: &moescope_model::WeightsSummary { hash: String::new(), bytes: 0 },
        dtype: DType::F32,
        moe_impl: MoeImpl::Selected,
        adapter: &adapter,
        prompts: &prompts,
        options: &options,
        command: Vec::new(),
        version: "bench",
        commit: None,
    }
    .manifest();
    let writer = RunWriter::create(dir, manifest, true).expect("a temporary directory");
    BackgroundWriter::spawn(writer).expect("a thread")
}

/// Decode and prefill, recorder off and on, passes alone and whole wall time.
fn recording(c: &mut Criterion) {
    let checkpoint = tiny();
    let model = model(&checkpoint, MoeImpl::Selected);
    let text = Text::open(checkpoint.dir()).expect("the bundled tokenizer");
    let long = tokens(&text, 512);
    let mut cache = KvCache::new(model.spec(), 1, 1024, model.device()).expect("fits the context");
    for (name, prompt, max_tokens) in [("decode", &long[..16], 128), ("prefill512", &long[..], 0)] {
        let case = Case { model: model.as_ref(), prompt, max_tokens };
        let elements = if max_tokens == 0 { prompt.len() } else { max_tokens };
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(elements as u64));
        group.bench_function(BenchmarkId::new("passes", "off"), |b| {
            b.iter_custom(|n| (0..n).map(|_| case.passes(&mut cache, None)).sum());
        });
        let dir = tempfile::tempdir().expect("a temporary directory");
        let writer = || writer(&checkpoint, model.as_ref(), &dir.path().join("run"));
        let mut recorder = Recorder::new(model.as_ref(), &text, writer(), false);
        group.bench_function(BenchmarkId::new("passes", "recording"), |b| {
            b.iter_custom(|n| (0..n).map(|_| case.passes(&mut cache, Some(&mut recorder))).sum());
        });
        group.bench_function(BenchmarkId::new("wall", "off"), |b| {
            b.iter(|| case.passes(&mut cache, None));
        });
        group.bench_function(BenchmarkId::new("wall", "recording"), |b| {
            b.iter(|| case.passes(&mut cache, Some(&mut recorder)));
        });
        group.finish();
    }
}

/// The two implementations of the experts layer, in a whole decode step and a whole prefill.
fn experts(c: &mut Criterion) {
    let checkpoint = tiny();
    let text = Text::open(checkpoint.dir()).expect("the bundled tokenizer");
    let long = tokens(&text, 128);
    let mut group = c.benchmark_group("moe-impl");
    for moe_impl in [MoeImpl::Selected, MoeImpl::Dense] {
        let model = model(&checkpoint, moe_impl);
        let mut cache = KvCache::new(model.spec(), 1, 256, model.device()).expect("fits");
        let case = Case { model: model.as_ref(), prompt: &long[..16], max_tokens: 32 };
        group.throughput(Throughput::Elements(32));
        group.bench_function(BenchmarkId::new("decode", moe_impl), |b| {
            b.iter_custom(|n| (0..n).map(|_| case.passes(&mut cache, None)).sum());
        });
        let case = Case { model: model.as_ref(), prompt: &long, max_tokens: 0 };
        group.throughput(Throughput::Elements(128));
        group.bench_function(BenchmarkId::new("prefill128", moe_impl), |b| {
            b.iter_custom(|n| (0..n).map(|_| case.passes(&mut cache, None)).sum());
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(6));
    targets = recording, experts
}
criterion_main!(benches);
