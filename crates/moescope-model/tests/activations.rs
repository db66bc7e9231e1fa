//! The bound on activations against what passes really allocate.
//!
//! On the CPU an allocator counts every byte, in a process of its own; on wgpu the pools tell after every
//! component what is in use.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use burn::tensor::{Device, DeviceKind, Tensor};
use moescope_model::{
    Checkpoint, Component, DType, KvCache, LoadOptions, LogitsFor, MoeImpl, Observer,
    footprint::{PassShape, activations},
    load,
    ops::logits::log_prob,
};
use serde_json::json;

use crate::{
    capacity::write_config,
    common::{fixture, ids, load_as, tiny},
};

/// The system's allocator, and how much it has given out.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as the caller's. Zeroed pages come from the system untouched.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Set in the process that measures.
const ALONE: &str = "MOESCOPE_TEST_ACTIVATIONS_ALONE";
/// What a pass takes whatever its size: lists of tasks, handles, names.
const CONSTANT: u64 = 64 << 10;
/// What a product of many rows packs at a time, per thread, whatever its size.
const PACKED: u64 = 2 << 20;

const MODELS: &[&str] =
    &["tiny", "deepseek-v3", "gemma4-ple-kvshared", "glm4-moe", "gpt-oss", "mixtral", "qwen3-moe"];

/// Whether this is the process that measures; if not, `test` is run in one of its own.
fn alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let passed = output.status.success() && said.contains("1 passed");
    assert!(passed, "{said}{}", String::from_utf8_lossy(&output.stderr));
    false
}

fn model(name: &str, device: &Device) -> Box<dyn moescope_model::MoeModel> {
    let path = if name == "tiny" { tiny() } else { fixture(name) };
    load_as(&path, device, MoeImpl::Selected, DType::F32)
}

fn tokens(pass: PassShape, vocab: usize) -> Vec<u32> {
    (0..pass.tokens()).map(|i| (i * 7919 % vocab) as u32).collect()
}

#[test]
fn a_pass_on_flex_stays_within_its_bound() {
    if !alone("activations::a_pass_on_flex_stays_within_its_bound") {
        return;
    }
    let device = Device::flex();
    for name in MODELS {
        let model = model(name, &device);
        let spec = model.spec();
        let most = spec.context.min(300);
        for pass in [
            PassShape::prefill(1, most),
            PassShape::prefill(2, most / 2),
            PassShape { batch: 1, new: most / 2, context: most / 2 },
            PassShape::decode(1, most - 1),
            PassShape::decode(4, most / 4),
        ] {
            let room = pass.context + pass.new;
            let mut cache = KvCache::new(spec, pass.batch, room, &device).unwrap();
            let before = PassShape { new: pass.context, context: 0, ..pass };
            let mut observer = Kept::default();
            for (pass, observed) in [(before, false), (pass, true)] {
                if pass.new == 0 {
                    continue;
                }
                let input = ids(&tokens(pass, spec.vocab), pass.batch, &device);
                observer.routing.clear();
                let start = NOW.load(Ordering::Relaxed);
                PEAK.store(start, Ordering::Relaxed);
                let logits = model.forward(input, &mut cache, &mut observer, LogitsFor::Last);
                logits.unwrap();
                let peak = (PEAK.load(Ordering::Relaxed) - start) as u64;
                let bound = activations(spec, pass, 0, false).total();
                println!("{name} {pass:?}: {peak} of {bound}");
                assert!(!observed || peak <= bound + CONSTANT, "{name} {pass:?}: {peak} > {bound}");
                // A bound that is far off would refuse what fits.
                assert!(
                    pass.context > 0 || bound <= 6 * peak,
                    "{name} {pass:?}: {peak} << {bound}"
                );
            }
        }
    }
}

/// A prompt whose tokens are scored as a recorder scores them, many rows at once: with a large vocabulary
/// that is more than the pass itself.
#[test]
fn scoring_on_flex_stays_within_its_bound() {
    if !alone("activations::scoring_on_flex_stays_within_its_bound") {
        return;
    }
    let device = Device::flex();
    // Without and with a cap on the logits.
    for (folder, rows) in [("qwen3-moe", 100), ("gemma4-moe", 64), ("gemma4-moe", 7)] {
        let dir = tempfile::tempdir().unwrap();
        let vocab = 60_000;
        let sizes = [("vocab_size", json!(vocab)), ("max_position_embeddings", json!(512))];
        write_config(dir.path(), folder, &sizes);
        let mut checkpoint = Checkpoint::open_config(dir.path()).unwrap();
        checkpoint.randomise(1);
        let (dtype, moe_impl) = (DType::F32, MoeImpl::Selected);
        let options = LoadOptions { device: &device, dtype, moe_impl, progress: &|_, _| {} };
        let (model, _) = load(&checkpoint, &options).unwrap();
        let spec = model.spec();
        let pass = PassShape::prefill(1, 200);
        let tokens = tokens(pass, vocab);
        let mut cache = KvCache::new(spec, 1, pass.new, &device).unwrap();
        let (input, mut observer) = (ids(&tokens, 1, &device), Kept::default());
        let start = NOW.load(Ordering::Relaxed);
        PEAK.store(start, Ordering::Relaxed);
        let _last = model.forward(input, &mut cache, &mut observer, LogitsFor::Last).unwrap();
        let normed = observer.normed.take().unwrap();
        for from in (0..pass.new - 1).step_by(rows) {
            let to = (from + rows).min(pass.new - 1);
            let part = normed.clone().slice([from..to, 0..spec.hidden]);
            log_prob(model.head(part), &tokens[from + 1..to + 1]);
        }
        let peak = (PEAK.load(Ordering::Relaxed) - start) as u64;
        let bound = activations(spec, pass, rows, false).total();
        let unscored = activations(spec, pass, 0, false).total();
        println!("{folder} {rows} rows: {peak} of {bound}, {unscored} without");
        let threads = std::thread::available_parallelism().unwrap().get() as u64;
        let most = bound + CONSTANT + PACKED * threads;
        assert!(peak <= most, "{folder}: {peak} > {most}");
        // Where many rows are scored it is they that take it, and that is counted closely.
        let closely = peak > unscored && bound <= 2 * peak;
        assert!(rows < 10 || closely, "{folder}: {peak} of {bound}, {unscored}");
    }
}

/// Keeps what a recorder keeps.
#[derive(Default)]
struct Kept {
    routing: Vec<moescope_model::Routing>,
    normed: Option<Tensor<2>>,
}

impl Observer for Kept {
    fn routed(&mut self, routing: moescope_model::Routing) {
        self.routing.push(routing);
    }

    fn step_done(&mut self, normed: &Tensor<2>) {
        self.normed = Some(normed.clone());
    }
}

/// Keeps that too, and asks the pools what is in use after every component.
struct Watching<'a> {
    device: &'a Device,
    kept: Kept,
    peak: u64,
}

impl Observer for Watching<'_> {
    fn routed(&mut self, routing: moescope_model::Routing) {
        self.kept.routed(routing);
    }

    fn component_done(&mut self, _layer: Option<u16>, _component: Component) {
        self.device.sync().unwrap();
        self.peak = self.peak.max(in_use(self.device));
    }

    fn layer_done(&mut self, _layer: u16, _hidden: &Tensor<2>) {
        self.device.sync().unwrap();
        self.peak = self.peak.max(in_use(self.device));
    }
}

fn in_use(device: &Device) -> u64 {
    device.memory_pool_usage().unwrap().bytes_in_use
}

/// Other tests use the same pools, so that this one measures only what it can attribute: alone in its process.
#[test]
fn a_pass_on_wgpu_stays_within_its_bound() {
    if !alone("activations::a_pass_on_wgpu_stays_within_its_bound") {
        return;
    }
    let device = Device::wgpu(DeviceKind::DefaultDevice);
    let model = model("qwen3-moe", &device);
    let spec = model.spec();
    let pass = PassShape::prefill(1, 40);
    let mut cache = KvCache::new(spec, 1, 40, &device).unwrap();
    let input = ids(&tokens(pass, spec.vocab), 1, &device);
    device.sync().unwrap();
    let before = in_use(&device);
    let mut watching = Watching { device: &device, kept: Kept::default(), peak: before };
    model.forward(input, &mut cache, &mut watching, LogitsFor::Last).unwrap();
    device.sync().unwrap();
    let (peak, bound) = (watching.peak - before, activations(spec, pass, 0, true).total());
    println!("qwen3-moe {pass:?} on wgpu: {peak} of {bound}");
    assert!(peak > 0 && peak <= bound + CONSTANT, "{peak} > {bound}");
}
