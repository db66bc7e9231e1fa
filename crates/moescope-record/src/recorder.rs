//! What is kept of a run: rows of the four tables, filled while it goes on.
//!
//! During a forward pass the recorder only collects handles. After the pass it reads them in one
//! transaction, so a device is asked once per step.

use std::time::Instant;

use burn::tensor::{DType, Device, Int, Tensor, TensorData, Transaction};
use moescope_model::{MoeModel, Observer, Routing, capacity, ops};
use moescope_trace::{
    BackgroundWriter,
    columns::{LayerColumns, Phase, RoutingColumns, StepColumns, TokenColumns},
};

use crate::{
    error::{RecordError, Result},
    memory::MemoryMeter,
    text::Text,
};

/// Rows of the routing table after which a part is written.
const PART_ROWS: usize = 1 << 18;
/// Time after which a part is written even if it is small, so that a killed run loses little.
const PART_SECONDS: f32 = 2.0;
/// Logits held at once while scoring a prompt.
const SCORED_LOGITS: usize = 1 << 26;
/// Rows of logits beyond which scoring more of them at once is no faster.
const SCORED_ROWS: usize = 512;

/// One forward pass as the recorder needs to know it.
pub struct Step<'a> {
    /// Index of the prompt.
    pub sequence: u32,
    /// Domain of the prompt.
    pub domain: &'a str,
    /// Prefill or decode.
    pub phase: Phase,
    /// Tokens processed, in order.
    pub tokens: &'a [u32],
    /// Tokens of the sequence before them.
    pub context: usize,
    /// Log-probability of the first of them, where known.
    pub first_logprob: Option<f32>,
    /// Wall time of the pass.
    pub duration_ns: u64,
    /// Time on the device.
    pub device_ns: Option<u64>,
}

/// What is kept of routing beyond ids, weights, entropy and margin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Whole router distributions.
    pub probs: bool,
    /// Norms of the selected experts' outputs: they say how much an expert adds, and cost time in every
    /// pass.
    pub output_norms: bool,
}

/// Rows of logits that are made at once to score a pass over `tokens` tokens, in tensors of at most `limit` bytes:
/// what [`moescope_model::Demand::scored`] has to count. At least one, if there is anything to score.
pub fn scored_rows(vocab: usize, tokens: usize, limit: Option<u64>) -> usize {
    let logits = limit.map_or(SCORED_LOGITS as u64, |bytes| bytes / size_of::<f32>() as u64);
    let logits = usize::try_from(logits).unwrap_or(SCORED_LOGITS).min(SCORED_LOGITS);
    (logits / vocab.max(1)).clamp(1, SCORED_ROWS).min(tokens.saturating_sub(1))
}

/// Fills tables and hands them to the writer, part by part.
pub struct Recorder<'a> {
    model: &'a dyn MoeModel,
    text: &'a Text,
    writer: BackgroundWriter,
    keep: Keep,
    meter: MemoryMeter,
    /// Bytes of one tensor of the device at most.
    tensor_limit: Option<u64>,
    pending: Vec<Routing>,
    normed: Option<Tensor<2>>,
    step: u32,
    tokens: TokenColumns,
    routing: RoutingColumns,
    steps: StepColumns,
    pub(crate) layers: LayerColumns,
    last_part: Instant,
    logprob_sum: f64,
    logprob_count: u64,
}

impl<'a> Recorder<'a> {
    /// A recorder of `model` that writes to `writer`; `keep` says what is kept of routing.
    pub fn new(
        model: &'a dyn MoeModel,
        text: &'a Text,
        writer: BackgroundWriter,
        keep: Keep,
    ) -> Self {
        Recorder {
            model,
            text,
            writer,
            keep,
            meter: MemoryMeter::new(model.device()),
            tensor_limit: capacity::tensor_limit(model.device()),
            pending: Vec::new(),
            normed: None,
            step: 0,
            tokens: TokenColumns::default(),
            routing: empty_routing(keep),
            steps: StepColumns::default(),
            layers: LayerColumns::default(),
            last_part: Instant::now(),
            logprob_sum: 0.0,
            logprob_count: 0,
        }
    }

    /// Number of the next step.
    pub fn step(&self) -> u32 {
        self.step
    }

    /// Mean log-probability of all tokens scored so far, nats, and their number.
    pub fn mean_logprob(&self) -> Option<(f64, u64)> {
        (self.logprob_count > 0)
            .then(|| (self.logprob_sum / self.logprob_count as f64, self.logprob_count))
    }

    /// Keeps the rows of a forward pass that has just been observed, and reads `logits [V]` (the last
    /// row of the pass) along with them.
    ///
    /// # Errors
    ///
    /// The device fails, or an earlier part could not be written.
    pub fn record(&mut self, step: &Step<'_>, logits: Tensor<1>) -> Result<Vec<f32>> {
        let memory = self.meter.read();
        let scores = self.score(step);
        let chunks = scores.len();
        let routed = Handles::of(std::mem::take(&mut self.pending), self.keep);
        let mut reads = Reads::on(self.model.device());
        reads.float(logits);
        scores.into_iter().for_each(|scores| reads.float(scores));
        let layout = routed.register(&mut reads);
        let mut data = reads.execute()?.into_iter();
        let logits = floats(data.next())?;

        let mut logprobs = vec![step.first_logprob];
        for _ in 0..chunks {
            logprobs.extend(floats(data.next())?.into_iter().map(Some));
        }
        layout.read(&mut data, step, &mut self.routing)?;
        self.push_tokens(step, &logprobs);
        let steps = &mut self.steps;
        steps.step.push(self.step);
        steps.phase.push(step.phase);
        steps.batch.push(1);
        steps.tokens.push(step.tokens.len() as u32);
        steps.context.push(step.context as u32);
        steps.duration_ns.push(step.duration_ns);
        steps.device_ns.push(step.device_ns);
        steps.bytes_in_use.push(memory.bytes_in_use);
        steps.bytes_reserved.push(memory.bytes_reserved);
        steps.rss_bytes.push(memory.rss_bytes);
        self.step += 1;
        if self.routing.layer.len() >= PART_ROWS
            || self.last_part.elapsed().as_secs_f32() >= PART_SECONDS
        {
            self.flush()?;
        }
        Ok(logits)
    }

    /// Hands everything kept so far to the writer.
    ///
    /// # Errors
    ///
    /// An earlier part could not be written.
    pub fn flush(&mut self) -> Result<()> {
        let routing = std::mem::replace(&mut self.routing, empty_routing(self.keep));
        self.writer.send_tokens(std::mem::take(&mut self.tokens))?;
        self.writer.send_routing(routing)?;
        self.writer.send_steps(std::mem::take(&mut self.steps))?;
        self.writer.send_layers(std::mem::take(&mut self.layers))?;
        self.last_part = Instant::now();
        Ok(())
    }

    /// Writes what is left and returns the writer.
    ///
    /// # Errors
    ///
    /// A part could not be written.
    pub fn finish(mut self) -> Result<BackgroundWriter> {
        self.flush()?;
        Ok(self.writer)
    }

    /// Log-probabilities of the pass's own tokens but the first, from the hidden states it left: the
    /// head runs outside the timed pass.
    fn score(&mut self, step: &Step<'_>) -> Vec<Tensor<1>> {
        let normed = self.normed.take();
        let n = step.tokens.len();
        let Some(normed) = normed.filter(|_| n > 1) else { return Vec::new() };
        let spec = self.model.spec();
        let (rows, hidden) = (scored_rows(spec.vocab, n, self.tensor_limit), spec.hidden);
        let chunks = (0..n - 1).step_by(rows).map(|from| {
            let to = (from + rows).min(n - 1);
            let part = normed.clone().slice([from..to, 0..hidden]);
            ops::logits::log_prob(self.model.head(part), &step.tokens[from + 1..to + 1])
        });
        chunks.collect()
    }

    fn push_tokens(&mut self, step: &Step<'_>, logprobs: &[Option<f32>]) {
        for logprob in logprobs.iter().flatten() {
            self.logprob_sum += f64::from(*logprob);
            self.logprob_count += 1;
        }
        let rows = &mut self.tokens;
        for (i, (&id, &logprob)) in step.tokens.iter().zip(logprobs).enumerate() {
            rows.sequence.push(step.sequence);
            rows.position.push((step.context + i) as u32);
            rows.step.push(self.step);
            rows.phase.push(step.phase);
            rows.token_id.push(id);
            rows.text.push(self.text.token(id));
            rows.domain.push(step.domain.to_owned());
            rows.logprob.push(logprob);
        }
    }
}

impl Observer for Recorder<'_> {
    fn wants_output_norms(&self) -> bool {
        self.keep.output_norms
    }

    fn routed(&mut self, routing: Routing) {
        self.pending.push(routing);
    }

    fn step_done(&mut self, normed: &Tensor<2>) {
        self.normed = Some(normed.clone());
    }
}

fn empty_routing(keep: Keep) -> RoutingColumns {
    RoutingColumns {
        probs: keep.probs.then(Vec::new),
        output_norms: keep.output_norms.then(Vec::new),
        ..RoutingColumns::default()
    }
}

/// Routing of one pass on the device, ready to be read: few numbers per layer, in one transaction.
struct Handles {
    /// Experts and experts per token; the layers of a model agree.
    experts: usize,
    top_k: usize,
    layers: Vec<LayerHandles>,
}

struct LayerHandles {
    layer: u16,
    /// See [`Routing::trace`].
    trace: Tensor<2>,
    probs: Option<Tensor<2>>,
    output_norms: Option<Tensor<2>>,
}

impl Handles {
    fn of(routed: Vec<Routing>, keep: Keep) -> Self {
        let (experts, top_k) =
            routed.first().map_or((0, 0), |r| (r.probs.dims()[1], r.weights.dims()[1]));
        let layers = routed.into_iter().map(|r| LayerHandles {
            layer: r.layer,
            trace: r.trace(),
            probs: keep.probs.then_some(r.probs),
            output_norms: r.output_norms.filter(|_| keep.output_norms),
        });
        Handles { experts, top_k, layers: layers.collect() }
    }

    /// Queues every tensor to be read and says how the data will come.
    fn register(self, reads: &mut Reads) -> Layout {
        let (experts, top_k) = (self.experts, self.top_k);
        let queue = |layer: LayerHandles| {
            reads.float(layer.trace);
            layer.probs.into_iter().for_each(|probs| reads.float(probs));
            layer.output_norms.into_iter().for_each(|norms| reads.float(norms));
            layer.layer
        };
        Layout { experts, top_k, layers: self.layers.into_iter().map(queue).collect() }
    }
}

/// Reads the experts of the layers of a pass, `[T * K]` each, from the device in one go.
pub(crate) fn read_experts(
    on: &Device,
    routed: Vec<(u16, Tensor<2, Int>)>,
) -> Result<Vec<(u16, Vec<u16>)>> {
    let mut reads = Reads::on(on);
    let mut layers = Vec::with_capacity(routed.len());
    for (layer, experts) in routed {
        reads.int(experts);
        layers.push(layer);
    }
    if layers.is_empty() {
        return Ok(Vec::new());
    }
    let mut data = reads.execute()?.into_iter();
    layers.into_iter().map(|layer| Ok((layer, experts(data.next(), layer)?))).collect()
}

/// What the data of one pass's routing looks like.
struct Layout {
    experts: usize,
    top_k: usize,
    layers: Vec<u16>,
}

impl Layout {
    /// Takes the data of every layer off `data` and appends rows, layer after layer.
    fn read(
        &self,
        data: &mut impl Iterator<Item = TensorData>,
        step: &Step<'_>,
        rows: &mut RoutingColumns,
    ) -> Result<()> {
        let k = self.top_k;
        (rows.top_k, rows.experts_total) = (k, self.experts);
        for &layer in &self.layers {
            let trace = floats(data.next())?;
            for row in trace.chunks_exact(2 * k + 2) {
                for &id in &row[..k] {
                    rows.experts.push(self.expert(id, layer)?);
                }
                if row[k..2 * k].iter().any(|weight| weight.is_nan()) {
                    return Err(RecordError::NoExpert { layer });
                }
                rows.weights.extend_from_slice(&row[k..2 * k]);
                rows.entropy.push(row[2 * k]);
                rows.margin.push(row[2 * k + 1]);
            }
            if let Some(probs) = &mut rows.probs {
                probs.extend(floats(data.next())?);
            }
            if let Some(norms) = &mut rows.output_norms {
                norms.extend(floats(data.next())?);
            }
            for i in 0..step.tokens.len() {
                rows.sequence.push(step.sequence);
                rows.position.push((step.context + i) as u32);
                rows.layer.push(layer);
            }
        }
        Ok(())
    }

    /// An id as it came from the device. A router whose logits are not numbers has no best expert.
    fn expert(&self, id: f32, layer: u16) -> Result<u16> {
        match id >= 0.0 && (id as usize) < self.experts {
            true => Ok(id as u16),
            false => Err(RecordError::NoExpert { layer }),
        }
    }
}

/// Tensors to be read together: in one transaction from a GPU, straight from memory on the CPU, where
/// a transaction would cost more than it saves.
enum Reads {
    Gpu(Transaction),
    Cpu(Vec<Result<TensorData>>),
}

impl Reads {
    fn on(device: &Device) -> Self {
        match ops::on_cpu(device) {
            true => Reads::Cpu(Vec::with_capacity(32)),
            false => Reads::Gpu(Transaction::default()),
        }
    }

    fn float<const D: usize>(&mut self, tensor: Tensor<D>) {
        match self {
            Reads::Gpu(reads) => *reads = std::mem::take(reads).register(tensor),
            Reads::Cpu(data) => data.push(tensor.try_into_data().map_err(|e| device(&e))),
        }
    }

    fn int<const D: usize>(&mut self, tensor: Tensor<D, Int>) {
        match self {
            Reads::Gpu(reads) => *reads = std::mem::take(reads).register(tensor),
            Reads::Cpu(data) => data.push(tensor.try_into_data().map_err(|e| device(&e))),
        }
    }

    fn execute(self) -> Result<Vec<TensorData>> {
        match self {
            Reads::Gpu(reads) => reads.try_execute().map_err(|e| device(&e)),
            Reads::Cpu(data) => data.into_iter().collect(),
        }
    }
}

fn floats(data: Option<TensorData>) -> Result<Vec<f32>> {
    let data = data.ok_or_else(|| RecordError::Device("a read returned too little".into()))?;
    let data = data.try_cast(DType::F32).map_err(|e| device(&e))?;
    data.try_into_vec().map_err(|e| device(&e))
}

fn experts(data: Option<TensorData>, layer: u16) -> Result<Vec<u16>> {
    let data = data.ok_or_else(|| RecordError::Device("a read returned too little".into()))?;
    let data = data.try_cast(DType::I32).map_err(|e| device(&e))?;
    let ids: Vec<i32> = data.try_into_vec().map_err(|e| device(&e))?;
    let known = |id| u16::try_from(id).map_err(|_| RecordError::NoExpert { layer });
    ids.into_iter().map(known).collect()
}

pub(crate) fn device(error: &dyn std::fmt::Debug) -> RecordError {
    RecordError::Device(format!("{error:?}"))
}

/// Ids as a tensor `[1, n]`.
pub(crate) fn ids(tokens: &[u32], on: &Device) -> Tensor<2, Int> {
    let values: Vec<i32> = tokens.iter().map(|&id| id as i32).collect();
    Tensor::from_data(TensorData::new(values, [1, tokens.len()]), (on, DType::I32))
}

#[cfg(test)]
mod tests;
