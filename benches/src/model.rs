//! The bundled model, real tokens, and a recorder that writes.

use std::{
    cell::RefCell,
    hint::black_box,
    path::{Path, PathBuf},
    time::Duration,
};

use burn::tensor::{Device, Int, Tensor, TensorData};
use moescope_model::{
    Checkpoint, DType, KvCache, LoadOptions, LogitsFor, MoeImpl, MoeModel, Unobserved,
    WeightsSummary, device, load,
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
use moescope_trace::{BackgroundWriter, Manifest, RunWriter};
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
        let model = load_model(&checkpoint, moe_impl);
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

    /// The model.
    pub fn model(&self) -> &dyn MoeModel {
        self.model.as_ref()
    }

    /// The model once more, in memory of its own.
    pub fn another(&self) -> Box<dyn MoeModel> {
        load_model(&self.checkpoint, MoeImpl::Selected)
    }

    /// Real text.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// A prompt of `prompt` tokens, continued by `max_tokens`.
    pub fn case(&self, prompt: usize, max_tokens: usize) -> Case<'_> {
        let model = self.model.as_ref();
        Case {
            model,
            cache: RefCell::new(self.cache(prompt + max_tokens)),
            prompt: &self.tokens[..prompt],
            max_tokens,
        }
    }

    /// An empty cache for one sequence of `capacity` tokens.
    pub fn cache(&self, capacity: usize) -> KvCache {
        let cache = KvCache::new(self.model.spec(), 1, capacity, self.model.device());
        cache.expect("fits the context")
    }

    /// One forward pass of the next `tokens` tokens of the text, whatever the model would generate.
    pub fn step(&self, cache: &mut KvCache, tokens: usize) {
        let next = self.tokens[cache.len()..][..tokens].iter().map(|&id| id as i32);
        let data = TensorData::new(next.collect::<Vec<i32>>(), [1, tokens]);
        let ids =
            Tensor::<2, Int>::from_data(data, (self.model.device(), burn::tensor::DType::I32));
        let logits = self.model.forward(ids, cache, &mut Unobserved, LogitsFor::Last);
        black_box(logits.expect("the bundled model runs"));
        self.model.device().sync().expect("the CPU is there");
    }

    /// A recorder that writes a run into a temporary directory, as `moescope run` does.
    pub fn recorder(&self) -> Recording<'_> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let writer = RunWriter::create(&dir.path().join("run"), self.manifest(), false);
        let writer = BackgroundWriter::spawn(writer.expect("a new run")).expect("a thread");
        Recording {
            recorder: Recorder::new(self.model.as_ref(), &self.text, writer, Keep::default()),
            _dir: dir,
        }
    }

    /// What a run of the model on this machine says about itself.
    pub fn manifest(&self) -> Manifest {
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
            weights: &WeightsSummary { hash: String::new(), bytes: 0, largest: 0 },
            dtype: DType::F32,
            moe_impl: MoeImpl::Selected,
            injected: None,
            adapter: &adapter,
            version: "bench",
            commit: None,
        };
        let (prompts, options) = (&prompts, &options);
        Conditions { subject, prompts, options, command: Vec::new() }.manifest()
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

fn load_model(checkpoint: &Checkpoint, moe_impl: MoeImpl) -> Box<dyn MoeModel> {
    let device = Device::flex();
    let options =
        LoadOptions { device: &device, dtype: DType::F32, moe_impl, progress: &|_, _| {} };
    load(checkpoint, &options).expect("the bundled model loads").0
}

/// The datasets that come with the project.
pub fn datasets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets")
}
