//! Prefill and decode of one sequence, timed, with or without a recorder.

use std::time::Instant;

use burn::tensor::{Int, Tensor};
use moescope_model::{
    KvCache, LogitsFor, MoeModel, Observer, Unobserved, device_time::with_device_time, ops,
};
use moescope_trace::columns::Phase;

use crate::{
    error::{RecordError, Result},
    profiler::Profiler,
    recorder::{Recorder, Step, device, ids},
    sampling::Sampler,
};

/// What to generate.
pub struct Request<'a> {
    /// Index of the prompt.
    pub sequence: u32,
    /// Domain of the prompt.
    pub domain: &'a str,
    /// Tokens of the prompt, at least one.
    pub prompt: &'a [u32],
    /// Tokens to generate at most; every one of them is also processed, so that its routing is known.
    pub max_tokens: usize,
    /// Tokens that end the generation.
    pub eos: &'a [u32],
    /// Take times per component instead of per pass.
    pub profile: bool,
}

/// What was generated and how long it took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generated {
    /// New tokens.
    pub tokens: Vec<u32>,
    /// Time of the prefill pass.
    pub prefill_ns: u64,
    /// Times of the decode passes.
    pub decode_ns: Vec<u64>,
}

/// Runs one sequence from an empty cache.
///
/// Times cover the forward pass and its synchronisation: no tokenisation, sampling or recording.
///
/// # Errors
///
/// The sequence does not fit the cache, the device fails, or a part can't be written.
pub fn generate(
    model: &dyn MoeModel,
    cache: &mut KvCache,
    request: &Request<'_>,
    sampler: &mut Sampler,
    mut recorder: Option<&mut Recorder<'_>>,
) -> Result<Generated> {
    cache.clear();
    let mut generated = Generated::default();
    let mut next = request.prompt.to_vec();
    let mut first_logprob = None;
    loop {
        let context = cache.len();
        let input = ids(&next, model.device());
        let pass = forward(model, cache, input, request.profile, recorder.as_deref_mut())?;
        let phase = if context == 0 { Phase::Prefill } else { Phase::Decode };
        match phase {
            Phase::Prefill => generated.prefill_ns = pass.duration_ns,
            Phase::Decode => generated.decode_ns.push(pass.duration_ns),
        }
        let logits = match recorder.as_deref_mut() {
            Some(recorder) => {
                let step = Step {
                    sequence: request.sequence,
                    domain: request.domain,
                    phase,
                    tokens: &next,
                    context,
                    first_logprob,
                    duration_ns: pass.duration_ns,
                    device_ns: pass.device_ns,
                };
                recorder.record(&step, pass.logits)?
            }
            None => {
                let data = pass.logits.try_into_data().map_err(|e| device(&e))?;
                data.try_into_vec().map_err(|e| device(&e))?
            }
        };
        if generated.tokens.len() == request.max_tokens {
            return Ok(generated);
        }
        let token = sampler.sample(&logits);
        if request.eos.contains(&token) {
            return Ok(generated);
        }
        first_logprob = Some(ops::logits::log_prob_of(&logits, token));
        generated.tokens.push(token);
        next = vec![token];
    }
}

struct Pass {
    /// `[V]`, of the last token.
    logits: Tensor<1>,
    duration_ns: u64,
    device_ns: Option<u64>,
}

/// One forward pass, synchronised.
fn forward(
    model: &dyn MoeModel,
    cache: &mut KvCache,
    input: Tensor<2, Int>,
    profile: bool,
    recorder: Option<&mut Recorder<'_>>,
) -> Result<Pass> {
    let target = model.device();
    let mut unobserved = Unobserved;
    let (logits, duration_ns, device_ns) = match recorder {
        Some(recorder) if profile => {
            let mut rows = std::mem::take(&mut recorder.layers);
            let (step, start) = (recorder.step(), Instant::now());
            let mut profiler = Profiler::new(recorder, target, step, &mut rows);
            let logits = model.forward(input, cache, &mut profiler, LogitsFor::Last)?;
            target.sync().map_err(|e| device(&e))?;
            let duration = start.elapsed();
            recorder.layers = rows;
            (logits, duration, None)
        }
        recorder => {
            let observer: &mut dyn Observer = match recorder {
                Some(recorder) => recorder,
                None => &mut unobserved,
            };
            let start = Instant::now();
            let work = || model.forward(input, cache, observer, LogitsFor::Last);
            let (logits, window) = with_device_time(target, work).map_err(RecordError::Device)?;
            let logits = logits?;
            target.sync().map_err(|e| device(&e))?;
            let duration = start.elapsed();
            (logits, duration, window.nanoseconds())
        }
    };
    let vocab = model.spec().vocab;
    let duration_ns = duration_ns.as_nanos() as u64;
    Ok(Pass { logits: logits.reshape([vocab]), duration_ns, device_ns })
}
