//! Fixtures and an observer that keeps everything.

use std::path::{Path, PathBuf};

use burn::tensor::{DType as BurnDType, Device, Int, Tensor, TensorData};
use moescope_model::{
    Checkpoint, DType, KvCache, LoadOptions, LogitsFor, MoeImpl, MoeModel, Observer, Routing,
    Unobserved, load,
};
use safetensors::SafeTensors;

/// The folder of a fixture.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The bundled model.
pub(crate) fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/tiny-gemma4-moe")
}

/// Loads a model in f32.
pub(crate) fn load_f32(path: &Path, device: &Device, moe_impl: MoeImpl) -> Box<dyn MoeModel> {
    load_as(path, device, moe_impl, DType::F32)
}

/// Loads a model in any type.
pub(crate) fn load_as(
    path: &Path,
    device: &Device,
    moe_impl: MoeImpl,
    dtype: DType,
) -> Box<dyn MoeModel> {
    let checkpoint = Checkpoint::open(path).unwrap();
    let options = LoadOptions { device, dtype, moe_impl, progress: &|_, _| {} };
    load(&checkpoint, &options).unwrap().0
}

/// Loads a model in f32 with weights cut into tensors of a part of the largest one's size, or one expert.
pub(crate) fn load_cut(path: &Path, device: &Device, parts: u64) -> Box<dyn MoeModel> {
    let mut checkpoint = Checkpoint::open(path).unwrap();
    let load = |checkpoint: &Checkpoint, device: &Device| {
        let (dtype, moe_impl) = (DType::F32, MoeImpl::Selected);
        load(checkpoint, &LoadOptions { device, dtype, moe_impl, progress: &|_, _| {} }).unwrap()
    };
    let (_, whole) = load(&checkpoint, &Device::flex());
    checkpoint.limit_tensors(whole.largest / parts);
    let (model, cut) = load(&checkpoint, device);
    assert_eq!((cut.bytes, &cut.hash), (whole.bytes, &whole.hash));
    assert!(cut.largest <= whole.largest / 2, "{} of {}", cut.largest, whole.largest);
    model
}

/// Values of an independent implementation.
pub(crate) struct Expected(Vec<u8>);

impl Expected {
    pub(crate) fn read(folder: &str) -> Self {
        Expected(std::fs::read(fixture(folder).join("expected.safetensors")).unwrap())
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        let all = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = all.tensor(name).unwrap_or_else(|_| panic!("no {name}"));
        tensor.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    /// Integers and their shape.
    pub(crate) fn ints(&self, name: &str) -> (Vec<u32>, Vec<usize>) {
        let all = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = all.tensor(name).unwrap_or_else(|_| panic!("no {name}"));
        let ints = tensor.data().as_chunks::<8>().0;
        (ints.iter().map(|b| i64::from_le_bytes(*b) as u32).collect(), tensor.shape().to_vec())
    }
}

/// Token ids `[batch, n]` on a device.
pub(crate) fn ids(ids: &[u32], batch: usize, device: &Device) -> Tensor<2, Int> {
    let data: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    Tensor::from_data(TensorData::new(data, [batch, ids.len() / batch]), (device, BurnDType::I32))
}

pub(crate) fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data_dtype(BurnDType::F32).try_into_vec().unwrap()
}

/// Everything an observer is shown, on the host.
#[derive(Default)]
pub(crate) struct Everything {
    /// As transformers numbers them: after the embedding, after each layer but the last, after the norm.
    pub(crate) hidden: Vec<Vec<f32>>,
    pub(crate) routed: Vec<Routed>,
}

pub(crate) struct Routed {
    pub(crate) layer: u16,
    /// What experts were chosen by.
    pub(crate) scores: Vec<f32>,
    /// Whether that is not the distribution: such routers of the reference leave ranks unsorted.
    pub(crate) unsorted: bool,
    pub(crate) experts: Vec<u32>,
    pub(crate) weights: Vec<f32>,
    pub(crate) k: usize,
    pub(crate) e: usize,
}

impl Observer for Everything {
    fn embedded(&mut self, hidden: &Tensor<2>) {
        self.hidden.push(floats(hidden.clone()));
    }

    fn layer_done(&mut self, _layer: u16, hidden: &Tensor<2>) {
        self.hidden.push(floats(hidden.clone()));
    }

    fn step_done(&mut self, normed: &Tensor<2>) {
        self.hidden.pop();
        self.hidden.push(floats(normed.clone()));
    }

    fn routed(&mut self, routing: Routing) {
        let [_, k] = routing.weights.dims();
        let [_, e] = routing.probs.dims();
        self.routed.push(Routed {
            layer: routing.layer,
            unsorted: routing.scores.is_some(),
            scores: floats(routing.scores.unwrap_or(routing.probs)),
            experts: routing
                .experts
                .into_data_dtype(BurnDType::I64)
                .try_into_vec::<i64>()
                .unwrap()
                .into_iter()
                .map(|e| e as u32)
                .collect(),
            weights: floats(routing.weights),
            k,
            e,
        });
    }
}

/// One forward pass from an empty cache.
pub(crate) fn forward_all(
    model: &dyn MoeModel,
    tokens: &[u32],
    batch: usize,
    observer: &mut dyn Observer,
) -> Vec<f32> {
    let n = tokens.len() / batch;
    let mut cache = KvCache::new(model.spec(), batch, n, model.device()).unwrap();
    let ids = ids(tokens, batch, model.device());
    floats(model.forward(ids, &mut cache, observer, LogitsFor::All).unwrap())
}

/// Feeds the tokens in chunks of the given sizes (the last repeats) and returns all logits.
pub(crate) fn in_chunks(
    model: &dyn MoeModel,
    tokens: &[u32],
    batch: usize,
    sizes: &[usize],
) -> Vec<f32> {
    let n = tokens.len() / batch;
    let vocab = model.spec().vocab;
    let mut cache = KvCache::new(model.spec(), batch, n, model.device()).unwrap();
    let mut out = vec![0.0; tokens.len() * vocab];
    let mut done = 0;
    let mut sizes = sizes.iter().copied();
    let mut size = 1;
    while done < n {
        size = sizes.next().unwrap_or(size).min(n - done);
        let part: Vec<u32> =
            (0..batch).flat_map(|b| &tokens[b * n + done..b * n + done + size]).copied().collect();
        let input = ids(&part, batch, model.device());
        let logits = model.forward(input, &mut cache, &mut Unobserved, LogitsFor::All).unwrap();
        for (i, row) in floats(logits).chunks(vocab).enumerate() {
            let at = ((i / size) * n + done + i % size) * vocab;
            out[at..at + vocab].copy_from_slice(row);
        }
        done += size;
    }
    out
}

/// Index of the largest element.
pub(crate) fn argmax(row: &[f32]) -> u32 {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as u32
}

/// Greedy continuation with a cache: prefill, then one token at a time.
pub(crate) fn generate(model: &dyn MoeModel, prompt: &[u32], total: usize) -> Vec<u32> {
    let mut cache = KvCache::new(model.spec(), 1, total, model.device()).unwrap();
    let mut tokens = prompt.to_vec();
    let mut next = prompt.to_vec();
    while tokens.len() < total {
        let observer = &mut Unobserved;
        let input = ids(&next, 1, model.device());
        let logits = model.forward(input, &mut cache, observer, LogitsFor::Last).unwrap();
        next = vec![argmax(&floats(logits))];
        tokens.extend(&next);
    }
    tokens
}

pub(crate) fn assert_close(got: &[f32], want: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        // Written so that a NaN fails.
        assert!((got - want).abs() <= tolerance, "{what}[{i}]: got {got}, expected {want}");
    }
}
