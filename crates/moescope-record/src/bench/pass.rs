//! One pass through a configuration: the prompt, then token after token, every forward pass synchronised.
//!
//! Everything the device reads is there before the clock starts, and nothing is read back: what is
//! generated comes from the workload (teacher forcing), not from the logits.

use std::time::Instant;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use moescope_model::{CacheMark, KvCache, LogitsFor, MoeModel, Observer, Unobserved};
use moescope_trace::bench::{Configuration, Sample};

use super::{watch::Watch, workload::Workload};
use crate::{
    dispatch,
    error::Result,
    recorder::device as failed,
    replay::{Recorded, Replay},
};

/// Tokens per sequence that are put into the cache at once before a measurement.
pub(super) const CHUNK: usize = 512;

/// What a configuration reads.
pub(super) struct Inputs<'a> {
    trace: Trace<'a>,
    depth: usize,
    /// The prompt, where there is one, and the decode passes; on the device.
    passes: Passes,
    prompt: bool,
}

/// Tokens of all sequences, on the host.
struct Trace<'a> {
    /// `[B][D + P + G]`.
    sequences: Vec<Vec<u32>>,
    /// The run they are from and their rows in it, where its experts are forced.
    rows: Option<(&'a Recorded, Vec<Vec<usize>>)>,
}

/// Forward passes that follow each other, on the device.
pub(super) struct Passes {
    /// `[B, S]` each.
    ids: Vec<Tensor<2, Int>>,
    forced: Option<Replay>,
}

/// A cache filled up to the depth of a configuration.
pub(super) struct Filled {
    cache: KvCache,
    mark: CacheMark,
    /// What filling took.
    pub(super) ns: u64,
}

impl<'a> Inputs<'a> {
    pub(super) fn new(
        model: &dyn MoeModel,
        workload: &'a Workload,
        configuration: &Configuration,
    ) -> Result<Self> {
        let [prompt, generate, depth] =
            [configuration.prompt, configuration.generate, configuration.depth].map(|n| n as usize);
        let trace = Trace::new(workload, configuration.batch, depth + prompt + generate);
        let mut ends = Vec::with_capacity(1 + generate);
        ends.extend((prompt > 0).then_some(depth + prompt));
        ends.extend(depth + prompt + 1..=depth + prompt + generate);
        let passes = trace.passes(model, depth, &ends)?;
        Ok(Inputs { depth, passes, prompt: prompt > 0, trace })
    }

    /// A new cache with the tokens of the depth in it, and the device idle.
    pub(super) fn fill(&self, model: &dyn MoeModel, watch: &mut Watch<'_>) -> Result<Filled> {
        let start = Instant::now();
        let batch = self.trace.sequences.len();
        let capacity = self.trace.sequences.first().map_or(0, Vec::len);
        let mut cache = KvCache::new(model.spec(), batch, capacity, model.device())?;
        for from in (0..self.depth).step_by(CHUNK) {
            watch.filled(from)?;
            let to = (from + CHUNK).min(self.depth);
            self.trace.passes(model, from, &[to])?.run(model, &mut cache, 0, &mut Unobserved)?;
        }
        let mark = cache.mark();
        model.device().sync().map_err(|e| failed(&e))?;
        Ok(Filled { cache, mark, ns: start.elapsed().as_nanos() as u64 })
    }

    /// The measured passes.
    pub(super) fn passes(&self) -> &Passes {
        &self.passes
    }

    /// Whether pass `number` is the prompt's.
    pub(super) fn is_prompt(&self, number: usize) -> bool {
        self.prompt && number == 0
    }
}

impl<'a> Trace<'a> {
    fn new(workload: &'a Workload, batch: u32, count: usize) -> Self {
        let sequences = (0..batch).map(|b| workload.sequence(b, count)).collect();
        let rows: Option<Vec<_>> = (0..batch).map(|b| workload.forced(b, count)).collect();
        let rows = rows.and_then(|all| {
            let recorded = all.first()?.0;
            Some((recorded, all.into_iter().map(|(_, rows)| rows).collect()))
        });
        Trace { sequences, rows }
    }

    /// Uploads the passes that process tokens up to each of `ends`, the first from `start` on.
    fn passes(&self, model: &dyn MoeModel, start: usize, ends: &[usize]) -> Result<Passes> {
        let starts = std::iter::once(start).chain(ends.iter().copied());
        let ranges: Vec<_> = starts.zip(ends).map(|(from, &to)| from..to).collect();
        let upload = |range: &std::ops::Range<usize>| {
            let all = self.sequences.iter().flat_map(|ids| &ids[range.clone()]);
            let values: Vec<i32> = all.map(|&id| id as i32).collect();
            let data = TensorData::new(values, [self.sequences.len(), range.len()]);
            Tensor::from_data(data, (model.device(), DType::I32))
        };
        let forced = self.rows.as_ref().map(|(recorded, rows)| {
            let of = |range: &std::ops::Range<usize>| {
                rows.iter().flat_map(|rows| &rows[range.clone()]).copied().collect()
            };
            let passes: Vec<Vec<usize>> = ranges.iter().map(of).collect();
            Replay::new(recorded, model.spec(), model.device(), &passes)
        });
        Ok(Passes { ids: ranges.iter().map(upload).collect(), forced: forced.transpose()? })
    }
}

impl Passes {
    /// Number of passes.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// One pass, observed and synchronised; the logits of each sequence's last token, `[B, V]`.
    pub(super) fn run(
        &self,
        model: &dyn MoeModel,
        cache: &mut KvCache,
        number: usize,
        observer: &mut dyn Observer,
    ) -> Result<Tensor<2>> {
        let ids = self.ids[number].clone();
        let logits = match &self.forced {
            None => model.forward(ids, cache, observer, LogitsFor::Last)?,
            Some(replay) => {
                let mut replaying = replay.from(number, observer);
                model.forward(ids, cache, &mut replaying, LogitsFor::Last)?
            }
        };
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
pub(super) fn timed(
    model: &dyn MoeModel,
    cache: &mut KvCache,
    inputs: &Inputs<'_>,
    watch: &Watch<'_>,
) -> Result<Sample> {
    let passes = inputs.passes();
    let mut sample = Sample { decode_ns: Vec::with_capacity(passes.len()), ..Sample::default() };
    for number in 0..passes.len() {
        watch.go_on()?;
        let start = Instant::now();
        let logits = passes.run(model, cache, number, &mut Unobserved)?;
        let ns = (start.elapsed().as_nanos() as u64).max(1);
        drop(logits);
        match inputs.is_prompt(number) {
            true => sample.prefill_ns = Some(ns),
            false => sample.decode_ns.push(ns),
        }
    }
    Ok(sample)
}

/// Kernels launched per decode pass, or in the prompt's pass where nothing is generated; `None` on the CPU.
pub(super) fn launches(
    model: &dyn MoeModel,
    cache: &mut KvCache,
    inputs: &Inputs<'_>,
    watch: &Watch<'_>,
) -> Result<Option<f64>> {
    let passes = inputs.passes();
    let generates = passes.len() > usize::from(inputs.prompt);
    let (mut sum, mut counted) = (0, 0u32);
    for number in 0..passes.len() {
        watch.go_on()?;
        let pass = || passes.run(model, cache, number, &mut Unobserved);
        let (_, found) = dispatch::count(model.device(), pass)?;
        let Some(found) = found else { return Ok(None) };
        if !(generates && inputs.is_prompt(number)) {
            sum += found.total;
            counted += 1;
        }
    }
    Ok(Some(sum as f64 / f64::from(counted.max(1))))
}
