//! A whole run: every prompt prefilled and continued, recorded as it goes.

use std::time::Instant;

use moescope_model::{KvCache, ModelError, ModelSpec, MoeModel, check_ids, ops};
use moescope_trace::BackgroundWriter;

use crate::{
    error::{RecordError, Result},
    generate::{Request, generate},
    prompts::{Prompt, PromptInput},
    recorder::{Keep, Recorder},
    sampling::{Sampler, Sampling},
    text::Text,
};

/// How to run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Tokens generated per prompt; 0 is prefill only.
    pub max_tokens: usize,
    /// Token choice.
    pub sampling: Sampling,
    /// Seed of the sampler.
    pub seed: u64,
    /// Tokens that end a generation.
    pub eos: Vec<u32>,
    /// What is kept of routing beyond ids, weights, entropy and margin.
    pub keep: Keep,
    /// Times per component instead of per pass.
    pub profile: bool,
}

/// A prompt as token ids, checked against the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Name in messages.
    pub id: String,
    /// Domain.
    pub domain: String,
    /// Tokens.
    pub tokens: Vec<u32>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Prompts done.
    pub prompts: usize,
    /// Tokens processed.
    pub tokens: u64,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Prompts.
    pub prompts: usize,
    /// Tokens of the prompts.
    pub prefill_tokens: u64,
    /// Tokens generated.
    pub decode_tokens: u64,
    /// Time of all prefill passes, nanoseconds.
    pub prefill_ns: u64,
    /// Time of all decode passes, nanoseconds.
    pub decode_ns: u64,
    /// Time of the whole run, nanoseconds: passes, sampling, scoring and recording.
    pub wall_ns: u64,
    /// Mean log-probability per token, nats, and the number of tokens it is over.
    pub mean_logprob: Option<(f64, u64)>,
}

impl Summary {
    /// Prompt tokens per second of prefill passes.
    pub fn prefill_rate(&self) -> Option<f64> {
        rate(self.prefill_tokens, self.prefill_ns)
    }

    /// Generated tokens per second of decode passes.
    pub fn decode_rate(&self) -> Option<f64> {
        rate(self.decode_tokens, self.decode_ns)
    }
}

fn rate(tokens: u64, ns: u64) -> Option<f64> {
    (tokens > 0 && ns > 0).then(|| tokens as f64 * 1e9 / ns as f64)
}

/// Tokenises prompts and checks them against the model, all before anything runs.
///
/// # Errors
///
/// A prompt has no tokens, an id beyond the vocabulary, or does not fit the context together with the
/// tokens to generate.
pub fn encode(
    spec: &ModelSpec,
    text: &Text,
    prompts: &[Prompt],
    max_tokens: usize,
) -> Result<Vec<Encoded>> {
    let encode = |prompt: &Prompt| {
        let tokens = match &prompt.input {
            PromptInput::Text(string) => text.encode(string)?,
            PromptInput::TokenIds(ids) => ids.clone(),
            PromptInput::Messages(messages) => {
                text.encode_messages(messages).map_err(|source| RecordError::Messages {
                    id: prompt.id.clone(),
                    source: Box::new(source),
                })?
            }
        };
        let named = |source: ModelError| RecordError::Prompt {
            id: prompt.id.clone(),
            source: Box::new(source),
        };
        check_ids(&tokens, spec.vocab).map_err(named)?;
        if tokens.is_empty() {
            return Err(RecordError::Empty { place: format!("prompt {:?}", prompt.id) });
        }
        if tokens.len() + max_tokens > spec.context {
            return Err(RecordError::TooLong {
                id: prompt.id.clone(),
                tokens: tokens.len(),
                max_tokens,
                context: spec.context,
            });
        }
        Ok(Encoded { id: prompt.id.clone(), domain: prompt.domain.clone(), tokens })
    };
    prompts.iter().map(encode).collect()
}

/// BLAKE3 over ids, domains and tokens in order, hex: runs with equal hashes read the same tokens.
pub fn prompts_hash(prompts: &[Encoded]) -> String {
    let mut hasher = blake3::Hasher::new();
    for prompt in prompts {
        for field in [&prompt.id, &prompt.domain] {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field.as_bytes());
        }
        hasher.update(&(prompt.tokens.len() as u64).to_le_bytes());
        prompt.tokens.iter().for_each(|id| {
            hasher.update(&id.to_le_bytes());
        });
    }
    hasher.finalize().to_hex().to_string()
}

/// Runs all prompts and records them; the writer is returned for its manifest to be completed.
///
/// # Errors
///
/// The device fails or a part can't be written. What was written until then stays readable.
pub fn run(
    model: &dyn MoeModel,
    text: &Text,
    prompts: &[Encoded],
    options: &RunOptions,
    writer: BackgroundWriter,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Summary, BackgroundWriter)> {
    let longest = prompts.iter().map(|p| p.tokens.len()).max().unwrap_or(1);
    let capacity = longest + options.max_tokens;
    let mut cache = KvCache::new(model.spec(), 1, capacity, model.device())?;
    warm_up(model, &mut cache, prompts, options)?;
    let start = Instant::now();
    let mut recorder = Recorder::new(model, text, writer, options.keep);
    let mut summary = Summary { prompts: prompts.len(), ..Summary::default() };
    for (i, prompt) in prompts.iter().enumerate() {
        let request = Request {
            sequence: i as u32,
            domain: &prompt.domain,
            prompt: &prompt.tokens,
            max_tokens: options.max_tokens,
            eos: &options.eos,
            profile: options.profile,
        };
        let mut sampler = Sampler::new(options.sampling, options.seed, i as u32);
        let done = generate(model, &mut cache, &request, &mut sampler, Some(&mut recorder))?;
        summary.prefill_tokens += prompt.tokens.len() as u64;
        summary.prefill_ns += done.prefill_ns;
        summary.decode_tokens += done.tokens.len() as u64;
        summary.decode_ns += done.decode_ns.iter().sum::<u64>();
        let tokens = summary.prefill_tokens + summary.decode_tokens;
        progress(Progress { prompts: i + 1, tokens });
    }
    summary.mean_logprob = recorder.mean_logprob();
    let writer = recorder.finish()?;
    summary.wall_ns = start.elapsed().as_nanos() as u64;
    Ok((summary, writer))
}

/// On a GPU, runs the longest prompt once unrecorded: shaders are compiled and kernel variants tried the
/// first time they are needed, which says nothing about the speed of the rest.
fn warm_up(
    model: &dyn MoeModel,
    cache: &mut KvCache,
    prompts: &[Encoded],
    options: &RunOptions,
) -> Result<()> {
    let longest = prompts.iter().max_by_key(|prompt| prompt.tokens.len());
    let Some(prompt) = longest.filter(|_| !ops::on_cpu(model.device())) else { return Ok(()) };
    let request = Request {
        sequence: 0,
        domain: &prompt.domain,
        prompt: &prompt.tokens,
        max_tokens: options.max_tokens.min(2),
        eos: &[],
        profile: false,
    };
    let mut sampler = Sampler::new(Sampling::GREEDY, options.seed, 0);
    generate(model, cache, &request, &mut sampler, None).map(|_| ())
}
