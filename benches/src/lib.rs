//! What the benchmarks in `benches/` share: the bundled model, real tokens, a recorder that writes.

use std::{
    cell::RefCell,
    hint::black_box,
    path::{Path, PathBuf},
    time::Duration,
};

use burn::tensor::Device;
use moescope_model::{
    Checkpoint, DType, KvCache, LoadOptions, MoeImpl, MoeModel, WeightsSummary, device, load,
};
use moescope_record::{
    PromptInput, RunOptions, Sampling, Text,
    conditions::{Conditions, Subject},
    generate::{Request, generate},
    prompts,
    recorder::{Keep, Recorder},
    run::Encoded,
    sampling::Sampler,
};
use moescope_trace::{BackgroundWriter, RunWriter};
use tempfile::TempDir;

/// The bundled model on `flex` in f32, and text for it.
pub struct Fixture {
    checkpoint: Checkpoint,
    model: Box<dyn MoeModel>,
    text: Text,
    tokens: Vec<u32>,
}

/// A generation to be timed.
pub struct Case<'a> {
    model: &'a dyn MoeModel,
    cache: RefCell<KvCache>,
    prompt: &'a [u32],
    max_tokens: usize,
}

/// A recorder and the directory it writes to.
pub struct Recording<'a> {
    /// Pass it to [`Case::passes`].
    pub recorder: Recorder<'a>,
    _dir: TempDir,
}

impl Fixture {
    /// Loads the model with the default implementation of the experts layers.
    pub fn load() -> Self {
        Self::with(MoeImpl::Selected)
    }

    /// Loads the model with a given implementation of the experts layers.
    pub fn with(moe_impl: MoeImpl) -> Self {
        let datasets = datasets();
        let checkpoint =
            Checkpoint::open(&datasets.join("tiny-gemma4-moe")).expect("the bundled model");
        let target = Device::flex();
        let options =
            LoadOptions { device: &target, dtype: DType::F32, moe_impl, progress: &|_, _| {} };
        let (model, _) = load(&checkpoint, &options).expect("the bundled model loads");
        let text = Text::open(checkpoint.dir()).expect("the bundled tokenizer");
        // Real text: routing depends on the input.
        let mut tokens = Vec::new();
        for prompt in prompts::read(&datasets.join("prompts")).expect("the bundled prompts") {
            if let PromptInput::Text(string) = prompt.input {
                tokens.extend(text.encode(&string).expect("prompts encode"));
            }
        }
        Fixture { checkpoint, model, text, tokens }
    }

    /// A prompt of `prompt` tokens, continued by `max_tokens`.
    pub fn case(&self, prompt: usize, max_tokens: usize) -> Case<'_> {
        let model = self.model.as_ref();
        let cache = KvCache::new(model.spec(), 1, prompt + max_tokens, model.device());
        Case {
            model,
            cache: RefCell::new(cache.expect("fits the context")),
            prompt: &self.tokens[..prompt],
            max_tokens,
        }
    }

    /// A recorder that writes a run into a temporary directory, as `moescope run` does.
    pub fn recorder(&self) -> Recording<'_> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (adapter, _) = device::choose(moescope_model::DeviceChoice::Flex).expect("flex");
        let options = RunOptions {
            max_tokens: 0,
            sampling: Sampling::GREEDY,
            seed: 0,
            eos: Vec::new(),
            keep: Keep::default(),
            profile: false,
        };
        let prompts = [Encoded { id: "bench".into(), domain: "bench".into(), tokens: vec![0] }];
        let subject = Subject {
            name: "bench",
            source: "bench",
            checkpoint: &self.checkpoint,
            spec: self.model.spec(),
            weights: &WeightsSummary { hash: String::new(), bytes: 0 },
            dtype: DType::F32,
            moe_impl: MoeImpl::Selected,
            injected: None,
            adapter: &adapter,
            version: "bench",
            commit: None,
        };
        let (prompts, options) = (&prompts, &options);
        let conditions = Conditions { subject, prompts, options, command: Vec::new() };
        let manifest = conditions.manifest();
        let writer = RunWriter::create(&dir.path().join("run"), manifest, false);
        let writer = BackgroundWriter::spawn(writer.expect("a new run")).expect("a thread");
        Recording {
            recorder: Recorder::new(self.model.as_ref(), &self.text, writer, Keep::default()),
            _dir: dir,
        }
    }
}

impl Case<'_> {
    /// Runs the generation; the time of its decode passes, or of the prefill where nothing is generated.
    pub fn passes(&self, recorder: Option<&mut Recorder<'_>>) -> Duration {
        let request = Request {
            sequence: 0,
            domain: "bench",
            prompt: self.prompt,
            max_tokens: self.max_tokens,
            eos: &[],
            profile: false,
        };
        let mut sampler = Sampler::new(Sampling::GREEDY, 0, 0);
        let mut cache = self.cache.borrow_mut();
        let done = generate(self.model, &mut cache, &request, &mut sampler, recorder);
        let done = black_box(done.expect("the bundled model runs"));
        Duration::from_nanos(match self.max_tokens {
            0 => done.prefill_ns,
            _ => done.decode_ns.iter().sum(),
        })
    }
}

fn datasets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets")
}
