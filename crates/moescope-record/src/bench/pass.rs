//! One pass through a configuration: the prompt, then token after token, every forward pass synchronised.
//!
//! Everything the device reads is there before the clock starts, and nothing is read back: what is
//! generated comes from the workload (teacher forcing), not from the logits.

use std::time::Instant;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use moescope_model::{CacheMark, KvCache, LogitsFor, MoeModel, Observer, Routing, Unobserved};
use moescope_trace::bench::{Configuration, Sample};

use super::workload::Workload;
use crate::{error::Result, recorder::device as failed};

/// Tokens per sequence that are put into the cache at once before a measurement.
const CHUNK: usize = 512;

/// What a configuration reads, on the device.
pub(super) struct Inputs {
    /// `[B][D + P + G]`.
    sequences: Vec<Vec<u32>>,
    depth: usize,
    capacity: usize,
    /// The prompt, where there is one, and the decode passes.
    steps: Vec<Step>,
    prompt: bool,
}

/// One forward pass.
pub(super) struct Step {
    /// `[B, S]`.
    ids: Tensor<2, Int>,
    /// Tokens of the pass, T.
    pub(super) tokens: usize,
    /// Tokens before it, per sequence.
    pub(super) context: usize,
}

/// A cache filled up to the depth of a configuration.
pub(super) struct Filled {
    cache: KvCache,
    mark: CacheMark,
    /// What filling took.
    pub(super) ns: u64,
}

impl Inputs {
    pub(super) fn new(
        model: &dyn MoeModel,
        workload: &Workload,
        configuration: &Configuration,
    ) -> Result<Self> {
        let [prompt, generate, depth] =
            [configuration.prompt, configuration.generate, configuration.depth].map(|n| n as usize);
        let capacity = depth + prompt + generate;
        let sequences: Vec<Vec<u32>> =
            (0..configuration.batch).map(|b| workload.sequence(b, capacity)).collect();
        let mut ends = Vec::with_capacity(1 + generate);
        ends.extend((prompt > 0).then_some(depth + prompt));
        ends.extend(depth + prompt + 1..=capacity);
        let mut from = depth;
        let steps = ends.into_iter().map(|to| {
            let step = Step::new(model.device(), &sequences, from, to);
            from = to;
            step
        });
        let steps = steps.collect();
        Ok(Inputs { depth, capacity, steps, prompt: prompt > 0, sequences })
    }

    /// A new cache with the tokens of the depth in it, and the device idle.
    pub(super) fn fill(&self, model: &dyn MoeModel) -> Result<Filled> {
        let start = Instant::now();
        let batch = self.sequences.len();
        let mut cache = KvCache::new(model.spec(), batch, self.capacity, model.device())?;
        for from in (0..self.depth).step_by(CHUNK) {
            let to = (from + CHUNK).min(self.depth);
            let step = Step::new(model.device(), &self.sequences, from, to);
            step.run(model, &mut cache, &mut Unobserved)?;
        }
        let mark = cache.mark();
        model.device().sync().map_err(|e| failed(&e))?;
        Ok(Filled { cache, mark, ns: start.elapsed().as_nanos() as u64 })
    }

    /// The measured forward passes in order, and whether the first is a prompt.
    pub(super) fn steps(&self) -> (&[Step], bool) {
        (&self.steps, self.prompt)
    }
}

impl Step {
    fn new(device: &Device, sequences: &[Vec<u32>], from: usize, to: usize) -> Self {
        let values = sequences.iter().flat_map(|ids| &ids[from..to]).map(|&id| id as i32);
        let values: Vec<i32> = values.collect();
        let tokens = values.len();
        let data = TensorData::new(values, [sequences.len(), to - from]);
        Step { ids: Tensor::from_data(data, (device, DType::I32)), tokens, context: from }
    }

    /// The pass, observed and synchronised; the logits of each sequence's last token, `[B, V]`.
    pub(super) fn run(
        &self,
        model: &dyn MoeModel,
        cache: &mut KvCache,
        observer: &mut dyn Observer,
    ) -> Result<Tensor<2>> {
        let mut observer = Watched { observer };
        let logits = model.forward(self.ids.clone(), cache, &mut observer, LogitsFor::Last)?;
        model.device().sync().map_err(|e| failed(&e))?;
        Ok(logits)
    }
}

impl Filled {
    /// The cache as it was when it was filled, and the device idle.
    pub(super) fn rewound(&mut self, device: &Device) -> Result<&mut KvCache> {
        self.cache.rewind(&self.mark);
        device.sync().map_err(|e| failed(&e))?;
        Ok(&mut self.cache)
    }
}

/// Times all passes of a configuration. `at_ns` and `joules` of the sample are the caller's.
pub(super) fn timed(model: &dyn MoeModel, cache: &mut KvCache, inputs: &Inputs) -> Result<Sample> {
    let (steps, prompt) = inputs.steps();
    let mut sample = Sample { decode_ns: Vec::with_capacity(steps.len()), ..Sample::default() };
    for (number, step) in steps.iter().enumerate() {
        let start = Instant::now();
        let logits = step.run(model, cache, &mut Unobserved)?;
        let ns = (start.elapsed().as_nanos() as u64).max(1);
        drop(logits);
        match prompt && number == 0 {
            true => sample.prefill_ns = Some(ns),
            false => sample.decode_ns.push(ns),
        }
    }
    Ok(sample)
}

/// All time of a sample.
pub(super) fn total_ns(sample: &Sample) -> u64 {
    sample.prefill_ns.unwrap_or(0) + sample.decode_ns.iter().sum::<u64>()
}

/// Passes on what another observer wants.
struct Watched<'a> {
    observer: &'a mut dyn Observer,
}

impl Observer for Watched<'_> {
    fn routed(&mut self, routing: Routing) {
        self.observer.routed(routing);
    }
}
