//! Runs made up to order, for benchmarks and for trying things out without a model.
//!
//! Popularity follows Zipf's law, domains prefer experts of their own, and a token keeps experts of the
//! token before it: the three properties that real traces mix. Everything follows from the seed.

use std::path::Path;

use moescope_trace::manifest::{TimingMode, Weights};
use moescope_trace::{Phase, RoutingColumns, RunWriter, StepColumns, TokenColumns, TraceError};

use crate::data::{LayerData, RunData};
use crate::error::AnalysisError;
use crate::parallel;
use crate::rng::Rng;

/// What a synthetic run is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Synthetic {
    /// Domains, each with as many sequences.
    pub domains: usize,
    /// Sequences of each domain.
    pub sequences: usize,
    /// Tokens of each prompt.
    pub prompt: usize,
    /// Tokens generated after each prompt, one per pass.
    pub generated: usize,
    /// MoE layers, L.
    pub layers: u16,
    /// Experts per layer, E.
    pub experts: usize,
    /// Experts per token, k.
    pub top_k: usize,
    /// Exponent of Zipf's law over the experts of a layer; 0 is uniform.
    pub zipf: f64,
    /// Chance that an expert is drawn in the order of popularity of the domain, not of the layer.
    pub own: f64,
    /// Chance that an expert of the token before is kept.
    pub kept: f64,
    /// Different token ids, by Zipf's law with exponent 1.
    pub vocabulary: u32,
    /// Whether weights, entropies and margins are there, or ids alone.
    pub weights: bool,
    /// Whether norms of the experts' outputs are there.
    pub output_norms: bool,
    /// Seed of everything.
    pub seed: u64,
}

impl Default for Synthetic {
    /// 8 domains of 16 sequences of 192 + 64 tokens, 4 layers, top 8 of 64 experts: a million decisions.
    fn default() -> Self {
        Self {
            domains: 8,
            sequences: 16,
            prompt: 192,
            generated: 64,
            layers: 4,
            experts: 64,
            top_k: 8,
            zipf: 0.6,
            own: 0.3,
            kept: 0.3,
            vocabulary: 50_000,
            weights: true,
            output_norms: false,
            seed: 1,
        }
    }
}

/// Fineness of the table by which popularity is drawn.
const TABLE: usize = 1 << 14;

/// Rows of `routing/` to a part.
const PART_ROWS: usize = 1 << 20;

impl Synthetic {
    /// Tokens, T.
    pub fn tokens(&self) -> usize {
        self.domains * self.sequences * (self.prompt + self.generated)
    }

    /// Routing decisions: one for every token, layer and selected expert, `T L k`.
    pub fn decisions(&self) -> usize {
        self.tokens() * usize::from(self.layers) * self.top_k
    }

    /// Makes the run.
    ///
    /// # Errors
    ///
    /// [`AnalysisError::Value`] where k is above E.
    pub fn generate(&self) -> Result<RunData, AnalysisError> {
        if self.top_k > self.experts {
            return Err(AnalysisError::Value {
                column: "routing.experts",
                sequence: 0,
                position: 0,
                problem: format!("{} of {} experts per token", self.top_k, self.experts),
            });
        }
        let names: Vec<String> =
            (0..self.domains).map(|domain| format!("domain {domain}")).collect();
        let length = self.prompt + self.generated;
        let sequences: Vec<(&str, usize)> = names
            .iter()
            .flat_map(|name| std::iter::repeat_n((name.as_str(), length), self.sequences))
            .collect();
        let numbers: Vec<u16> = (0..self.layers).collect();
        let layers = parallel::map(&numbers, |&layer| self.layer(layer));
        let mut data = RunData::from_ids("synthetic", &sequences, layers)?;

        let mut rng = Rng::new(self.seed);
        let span = f64::from(self.vocabulary.max(1)).ln();
        data.tokens.token_id.fill_with(|| (rng.unit() * span).exp() as u32);
        data.tokens.logprob =
            self.weights.then(|| (0..data.len()).map(|_| (-4.0 * rng.unit()) as f32).collect());
        self.passes(&mut data, &mut rng);
        data.manifest.model.weights = Weights::Random;
        data.manifest.settings.timing_mode = TimingMode::EndToEnd;
        data.manifest.settings.max_tokens = self.generated as u32;
        data.manifest.settings.seed = self.seed;
        data.manifest.settings.saliency = self.output_norms;
        data.check()?;
        Ok(data)
    }

    /// One layer over all tokens.
    fn layer(&self, layer: u16) -> LayerData {
        let mut rng =
            Rng::new(self.seed ^ (u64::from(layer) + 1).wrapping_mul(0xA24B_AED4_963E_E407));
        let table = self.popularity();
        let orders: Vec<Vec<u16>> =
            (0..=self.domains).map(|_| shuffled(self.experts, &mut rng)).collect();
        let tokens = self.tokens();
        let mut ids: Vec<u16> = Vec::with_capacity(tokens * self.top_k);
        let length = self.prompt + self.generated;
        for token in 0..tokens {
            let own = &orders[1 + token / (length * self.sequences)];
            let first = ids.len();
            let before = (token % length > 0).then(|| first - self.top_k);
            for rank in 0..self.top_k {
                let kept =
                    before.filter(|_| rng.unit() < self.kept).map(|before| ids[before + rank]);
                let mut place = 0;
                let expert =
                    kept.filter(|kept| !ids[first..].contains(kept)).unwrap_or_else(|| {
                        let order = if rng.unit() < self.own { own } else { &orders[0] };
                        place = usize::from(table[rng.below(TABLE)]);
                        // The next in popularity, where it is taken.
                        while ids[first..].contains(&order[place]) {
                            place = (place + 1) % self.experts;
                        }
                        order[place]
                    });
                ids.push(expert);
            }
        }
        let mut data = LayerData::from_ids(layer, self.experts, self.top_k, ids);
        if self.weights {
            let even = 2.0 / (self.top_k * (self.top_k + 1)) as f32;
            let falling: Vec<f32> = (1..=self.top_k).rev().map(|rank| rank as f32 * even).collect();
            data.weights = Some(falling.repeat(tokens));
            let highest = (self.experts as f64).ln();
            data.entropy = Some((0..tokens).map(|_| (highest * rng.unit()) as f32).collect());
            data.margin = Some((0..tokens).map(|_| (0.1 * rng.unit()) as f32).collect());
        }
        if self.output_norms {
            // Experts differ in what they add, from 1 to 2 times, and so do tokens.
            let scale: Vec<f64> = (0..self.experts).map(|_| 1.0 + rng.unit()).collect();
            let norm = |id: &u16| (scale[usize::from(*id)] * (0.5 + rng.unit())) as f32;
            data.output_norms = Some(data.ids.iter().map(norm).collect());
        }
        data
    }

    /// Ranks of popularity, each as often as Zipf's law has it, `[TABLE]`.
    fn popularity(&self) -> Vec<u16> {
        let weights: Vec<f64> =
            (1..=self.experts).map(|rank| (rank as f64).powf(-self.zipf)).collect();
        let total: f64 = weights.iter().sum();
        let (mut rank, mut reached) = (0, weights.first().copied().unwrap_or(0.0));
        (0..TABLE)
            .map(|at| {
                while rank + 1 < self.experts && reached / total * TABLE as f64 <= at as f64 {
                    rank += 1;
                    reached += weights[rank];
                }
                rank as u16
            })
            .collect()
    }

    /// A prefill pass per sequence and a pass per generated token, with times and memory.
    fn passes(&self, data: &mut RunData, rng: &mut Rng) {
        let mut steps = StepColumns::default();
        let mut pass = |phase, tokens: usize, context: usize, nanoseconds: f64| {
            let step = steps.step.len() as u32;
            steps.step.push(step);
            steps.phase.push(phase);
            steps.batch.push(1);
            steps.tokens.push(tokens as u32);
            steps.context.push(context as u32);
            steps.duration_ns.push((nanoseconds * (1.0 + 0.1 * rng.unit())) as u64);
            steps.device_ns.push(None);
            steps.bytes_in_use.push(Some(1 << 30));
            steps.bytes_reserved.push(Some(1 << 31));
            steps.rss_bytes.push(Some(1 << 32));
            step
        };
        for sequence in &data.sequences {
            let prompt = sequence.start..sequence.start + self.prompt;
            if self.prompt > 0 {
                let step = pass(Phase::Prefill, self.prompt, 0, 5e4 * self.prompt as f64);
                data.tokens.step[prompt.clone()].fill(step);
            }
            for token in prompt.end..sequence.end {
                data.tokens.phase[token] = Phase::Decode;
                data.tokens.step[token] = pass(Phase::Decode, 1, token - sequence.start, 1e6);
            }
        }
        data.steps = steps;
    }

    /// Makes the run and writes it as a run directory, which must not be there yet.
    ///
    /// # Errors
    ///
    /// As [`Synthetic::generate`], and [`AnalysisError::Trace`] where it cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), AnalysisError> {
        let data = self.generate()?;
        let mut writer = RunWriter::create(dir, data.manifest.clone(), false)?;
        let length = (self.prompt + self.generated).max(1);
        let part = (PART_ROWS / usize::from(self.layers.max(1)) / length).max(1);
        for sequences in data.sequences.chunks(part) {
            let (first, last) = (sequences[0], sequences[sequences.len() - 1]);
            self.write_part(&mut writer, &data, first.start..last.end)?;
        }
        writer.write_steps(&data.steps)?;
        writer.finish()?;
        Ok(())
    }

    fn write_part(
        &self,
        writer: &mut RunWriter,
        data: &RunData,
        tokens: std::ops::Range<usize>,
    ) -> Result<(), TraceError> {
        let length = self.prompt + self.generated;
        let sequence: Vec<u32> = tokens.clone().map(|token| (token / length) as u32).collect();
        let position = &data.tokens.position[tokens.clone()];
        let token_id = data.tokens.token_id[tokens.clone()].to_vec();
        let domain = |sequence: &u32| {
            data.domains[usize::from(data.sequences[*sequence as usize].domain)].clone()
        };
        writer.write_tokens(&TokenColumns {
            position: position.to_vec(),
            step: data.tokens.step[tokens.clone()].to_vec(),
            phase: data.tokens.phase[tokens.clone()].to_vec(),
            text: token_id.iter().map(|id| format!("t{id}")).collect(),
            domain: sequence.iter().map(domain).collect(),
            logprob: tokens
                .clone()
                .map(|token| Some(data.tokens.logprob.as_ref()?[token]))
                .collect(),
            sequence: sequence.clone(),
            token_id,
        })?;
        let layers = &data.layers;
        let per_expert = tokens.start * self.top_k..tokens.end * self.top_k;
        let column = |of: fn(&LayerData) -> Option<&[f32]>, range: &std::ops::Range<usize>| {
            let parts = layers.iter().filter_map(|layer| of(layer)?.get(range.clone()));
            parts.collect::<Vec<_>>().concat()
        };
        writer.write_routing(&RoutingColumns {
            sequence: sequence.repeat(layers.len()),
            position: position.repeat(layers.len()),
            layer: layers
                .iter()
                .flat_map(|layer| std::iter::repeat_n(layer.layer, tokens.len()))
                .collect(),
            top_k: self.top_k,
            experts: layers
                .iter()
                .flat_map(|layer| &layer.ids[per_expert.clone()])
                .copied()
                .collect(),
            weights: column(|layer| layer.weights.as_deref(), &per_expert),
            entropy: column(|layer| layer.entropy.as_deref(), &tokens),
            margin: column(|layer| layer.margin.as_deref(), &tokens),
            output_norms: self
                .output_norms
                .then(|| column(|layer| layer.output_norms.as_deref(), &per_expert)),
            experts_total: self.experts,
            ..RoutingColumns::default()
        })
    }
}

/// The experts in a random order.
fn shuffled(experts: usize, rng: &mut Rng) -> Vec<u16> {
    let mut order: Vec<u16> = (0..experts as u16).collect();
    for at in (1..experts).rev() {
        order.swap(at, rng.below(at + 1));
    }
    order
}
