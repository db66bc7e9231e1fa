//! A run as dense arrays: what metrics read.

use std::collections::BTreeMap;

use moescope_trace::Phase;
use moescope_trace::fingerprint::MachineState;
use moescope_trace::manifest::{
    DeviceInfo, DeviceType, HostInfo, Manifest, ModelInfo, MoeLayer, MoeShape, SCHEMA_VERSION,
    SamplingInfo, Settings, Status, TimingMode, Weights,
};

use crate::error::AnalysisError;
use crate::metric::Need;
use crate::texts::TokenTexts;

/// In [`LayerData::ids`]: no expert here. A whole row of it is a token whose routing at that layer
/// was not recorded.
pub const NO_EXPERT: u16 = u16::MAX;

/// One run. Tokens are ordered by sequence and position; all per-token arrays share that order.
#[derive(Clone, Debug)]
pub struct RunData {
    /// Name for tables and legends.
    pub name: String,
    /// What the run says about itself.
    pub manifest: Manifest,
    /// Whether the run did not reach its end.
    pub partial: bool,
    /// Domain names; [`Sequence::domain`] points into it.
    pub domains: Vec<String>,
    /// Sequences in ascending order of their ids.
    pub sequences: Vec<Sequence>,
    /// Per-token columns, `[T]`.
    pub tokens: TokenData,
    /// MoE layers in the order of the manifest.
    pub layers: Vec<LayerData>,
    /// Forward passes in the order they ran.
    pub steps: StepSeries,
}

/// One sequence: the tokens `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Its number in the run directory.
    pub id: u32,
    /// Index of its domain.
    pub domain: u16,
    /// First token.
    pub start: usize,
    /// One past its last token.
    pub end: usize,
}

/// Per-token columns, `[T]` each.
#[derive(Clone, Debug, Default)]
pub struct TokenData {
    /// Position in the sequence.
    pub position: Vec<u32>,
    /// Token id; all 0 where not recorded.
    pub token_id: Vec<u32>,
    /// Forward pass that processed the token.
    pub step: Vec<u32>,
    /// Phase of that pass.
    pub phase: Vec<Phase>,
    /// Log-probability of the token given those before it, nats; NaN where there is none
    /// (the first token of a sequence). `None` where not recorded at all.
    pub logprob: Option<Vec<f32>>,
    /// Texts of the tokens; `None` where not recorded at all.
    pub texts: Option<TokenTexts>,
}

/// One MoE layer over all tokens.
#[derive(Clone, Debug)]
pub struct LayerData {
    /// Index among all decoder layers of the model.
    pub layer: u16,
    /// Routed experts, E.
    pub experts: usize,
    /// Experts per token, k.
    pub top_k: usize,
    /// Selected experts in rank order, `[T, k]`; see [`NO_EXPERT`].
    pub ids: Vec<u16>,
    /// Weights as applied, `[T, k]`.
    pub weights: Option<Vec<f32>>,
    /// Entropy of the full router distribution, nats, `[T]`; NaN where a token has none.
    pub entropy: Option<Vec<f32>>,
    /// p(k-th) - p(k+1-th), `[T]`; NaN where a token has none.
    pub margin: Option<Vec<f32>>,
    /// L2 norm of each selected expert's output before its weight is applied, `[T, k]`.
    pub output_norms: Option<Vec<f32>>,
}

/// Forward passes, one entry per pass in each vector: the columns of `steps/` as they are.
pub type StepSeries = moescope_trace::StepTable;

impl LayerData {
    /// A layer of which only the expert ids are known: `ids` is `[T, k]`.
    pub fn from_ids(layer: u16, experts: usize, top_k: usize, ids: Vec<u16>) -> Self {
        Self {
            layer,
            experts,
            top_k,
            ids,
            weights: None,
            entropy: None,
            margin: None,
            output_norms: None,
        }
    }

    /// Experts of one token in rank order, `[k]`.
    #[inline]
    pub fn experts_of(&self, token: usize) -> &[u16] {
        &self.ids[token * self.top_k..(token + 1) * self.top_k]
    }

    /// Experts that one token selected, in rank order: [`LayerData::experts_of`] without empty places.
    #[inline]
    pub fn selected(&self, token: usize) -> &[u16] {
        let experts = self.experts_of(token);
        match experts.last() {
            // Empty places come last (see `RunData::check`).
            Some(&NO_EXPERT) => {
                let filled = experts.iter().position(|&id| id == NO_EXPERT);
                &experts[..filled.unwrap_or(experts.len())]
            }
            _ => experts,
        }
    }
}

impl RunData {
    /// A run from ids alone: sequences as (domain, tokens) one after the other, and layers whose
    /// arrays cover their T tokens in that order. Everything else is "not recorded" and may be
    /// filled in afterwards (`data.tokens.logprob = ...`, followed by [`RunData::check`]).
    ///
    /// Token ids are 0, all tokens are of the prefill, and pass n is sequence n.
    ///
    /// # Errors
    ///
    /// As [`RunData::check`].
    pub fn from_ids(
        name: &str,
        sequences: &[(&str, usize)],
        layers: Vec<LayerData>,
    ) -> Result<Self, AnalysisError> {
        let total: usize = sequences.iter().map(|(_, tokens)| tokens).sum();
        let mut data = Self {
            name: name.to_owned(),
            manifest: unknown_manifest(name, &layers, sequences.len()),
            partial: false,
            domains: Vec::new(),
            sequences: Vec::with_capacity(sequences.len()),
            tokens: TokenData {
                position: Vec::with_capacity(total),
                token_id: vec![0; total],
                step: Vec::with_capacity(total),
                phase: vec![Phase::Prefill; total],
                logprob: None,
                texts: None,
            },
            layers,
            steps: StepSeries::default(),
        };
        for (&(domain, tokens), id) in sequences.iter().zip(0..) {
            let domain = match data.domains.iter().position(|known| known == domain) {
                Some(index) => index,
                None => {
                    data.domains.push(domain.to_owned());
                    data.domains.len() - 1
                }
            };
            let start = data.tokens.position.len();
            data.tokens.position.extend(0..tokens as u32);
            data.tokens.step.extend(std::iter::repeat_n(id, tokens));
            let end = start + tokens;
            data.sequences.push(Sequence { id, domain: domain as u16, start, end });
        }
        data.check()?;
        Ok(data)
    }

    /// Number of tokens, T.
    pub fn len(&self) -> usize {
        self.tokens.position.len()
    }

    /// Whether the run has no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the run recorded what a metric needs.
    pub fn has(&self, need: Need) -> bool {
        let layers = &self.layers;
        let steps = &self.steps;
        let timed = self.manifest.settings.timing_mode == TimingMode::EndToEnd;
        match need {
            Need::Ids => !layers.is_empty() && !self.is_empty(),
            Need::Weights => layers.iter().any(|layer| layer.weights.is_some()),
            Need::Entropy => layers.iter().any(|layer| layer.entropy.is_some()),
            Need::OutputNorms => layers.iter().any(|layer| layer.output_norms.is_some()),
            Need::Margin => layers.iter().any(|layer| layer.margin.is_some()),
            Need::TokenIds => self.tokens.token_id.iter().any(|&id| id != 0),
            Need::Passes => steps.rows() > 0,
            Need::Logprobs => self.tokens.logprob.is_some(),
            Need::Domains => self.domains.len() > 1,
            Need::Layers => layers.len() > 1,
            Need::Decode => {
                let phase = &self.tokens.phase;
                phase.contains(&Phase::Prefill) && phase.contains(&Phase::Decode)
            }
            Need::FewDomains => self.domains.len() <= Need::MAX_DOMAINS,
            Need::FewExperts => {
                layers.is_empty() || layers.iter().any(|layer| layer.experts <= Need::MAX_EXPERTS)
            }
            Need::Times => timed && steps.rows() > 0,
            Need::BytesInUse => steps.bytes_in_use.iter().any(Option::is_some),
            Need::BytesReserved => steps.bytes_reserved.iter().any(Option::is_some),
            Need::Rss => steps.rss_bytes.iter().any(Option::is_some),
        }
    }

    /// Checks that all arrays fit together and every expert exists. The constructors call it; call
    /// it after changing fields by hand.
    ///
    /// # Errors
    ///
    /// [`AnalysisError::Length`] for an array of the wrong length, [`AnalysisError::Value`] for
    /// an expert that is not below E, an expert after an empty place, or a sequence without a domain.
    pub fn check(&self) -> Result<(), AnalysisError> {
        let tokens = self.sequences.last().map_or(0, |last| last.end);
        let length = |column: String, expected: usize, found: usize| {
            if expected == found {
                Ok(())
            } else {
                Err(AnalysisError::Length { column, expected, found })
            }
        };
        let columns = [
            ("position", self.tokens.position.len()),
            ("token_id", self.tokens.token_id.len()),
            ("step", self.tokens.step.len()),
            ("phase", self.tokens.phase.len()),
            ("logprob", self.tokens.logprob.as_ref().map_or(tokens, Vec::len)),
            ("text", self.tokens.texts.as_ref().map_or(tokens, TokenTexts::len)),
        ];
        for (column, found) in columns {
            length(format!("tokens.{column}"), tokens, found)?;
        }
        let steps = &self.steps;
        let columns = [
            ("phase", steps.phase.len()),
            ("batch", steps.batch.len()),
            ("tokens", steps.tokens.len()),
            ("context", steps.context.len()),
            ("duration_ns", steps.duration_ns.len()),
            ("device_ns", steps.device_ns.len()),
            ("bytes_in_use", steps.bytes_in_use.len()),
            ("bytes_reserved", steps.bytes_reserved.len()),
            ("rss_bytes", steps.rss_bytes.len()),
        ];
        for (column, found) in columns {
            length(format!("steps.{column}"), steps.rows(), found)?;
        }
        for sequence in &self.sequences {
            if usize::from(sequence.domain) >= self.domains.len() {
                return Err(AnalysisError::Value {
                    column: "tokens.domain",
                    sequence: sequence.id,
                    position: 0,
                    problem: format!(
                        "domain {} of {} has no name",
                        sequence.domain,
                        self.domains.len()
                    ),
                });
            }
        }
        for layer in &self.layers {
            let (number, selected) = (layer.layer, tokens * layer.top_k);
            let optional =
                |values: &Option<Vec<f32>>, expected| values.as_ref().map_or(expected, Vec::len);
            let columns = [
                ("experts", selected, layer.ids.len()),
                ("weights", selected, optional(&layer.weights, selected)),
                ("entropy", tokens, optional(&layer.entropy, tokens)),
                ("margin", tokens, optional(&layer.margin, tokens)),
                ("output_norms", selected, optional(&layer.output_norms, selected)),
            ];
            for (column, expected, found) in columns {
                length(format!("routing.{column} (layer {number})"), expected, found)?;
            }
            let wrong = |at: usize, problem: String| {
                let token = at / layer.top_k;
                let sequence = self.sequences.iter().find(|sequence| token < sequence.end);
                AnalysisError::Value {
                    column: "routing.experts",
                    sequence: sequence.map_or(0, |sequence| sequence.id),
                    position: self.tokens.position[token],
                    problem,
                }
            };
            // NO_EXPERT is the largest id, so one comparison serves nearly all.
            for (at, &id) in layer.ids.iter().enumerate() {
                if usize::from(id) < layer.experts {
                    continue;
                }
                if id != NO_EXPERT {
                    let last = layer.experts.saturating_sub(1);
                    let problem = format!("layer {number} has experts 0 to {last}, found {id}");
                    return Err(wrong(at, problem));
                }
                let end = (at / layer.top_k + 1) * layer.top_k;
                if let Some(after) = layer.ids[at..end].iter().find(|&&id| id != NO_EXPERT) {
                    let problem =
                        format!("layer {number}: found expert {after} after an empty place");
                    return Err(wrong(at, problem));
                }
            }
        }
        Ok(())
    }
}

/// The manifest of a run about which nothing is known but its name and the shape of its layers.
fn unknown_manifest(name: &str, layers: &[LayerData], sequences: usize) -> Manifest {
    Manifest {
        schema_version: SCHEMA_VERSION,
        run_id: name.to_owned(),
        created_at: String::new(),
        status: Status::Complete,
        moescope_version: env!("CARGO_PKG_VERSION").to_owned(),
        git_commit: None,
        command: Vec::new(),
        model: ModelInfo {
            name: name.to_owned(),
            source: String::new(),
            architecture: String::new(),
            config_hash: String::new(),
            weights_hash: String::new(),
            dtype: String::new(),
            quantisation: None,
            total_parameters: 0,
            active_parameters: 0,
            bytes: 0,
            weights: Weights::Trained,
            layers_kept: None,
            rumour: false,
            injected: None,
        },
        moe: MoeShape {
            layers: layers
                .iter()
                .map(|layer| MoeLayer {
                    layer: layer.layer,
                    experts: layer.experts as u16,
                    top_k: layer.top_k as u16,
                    shared_experts: 0,
                })
                .collect(),
        },
        device: DeviceInfo {
            backend: String::new(),
            adapter: String::new(),
            driver: None,
            driver_version: None,
            vendor_id: None,
            device_id: None,
            device_type: DeviceType::Unknown,
            limits: BTreeMap::new(),
        },
        host: HostInfo { cpu: String::new(), cores: 0, ram_bytes: 0, os: String::new() },
        state: MachineState::default(),
        settings: Settings {
            batch: 1,
            seed: 0,
            sampling: SamplingInfo { temperature: 0.0, top_k: 0, top_p: 1.0 },
            max_tokens: 0,
            moe_impl: String::new(),
            timing_mode: TimingMode::None,
            saliency: false,
        },
        prompts_hash: String::new(),
        sequences: sequences as u32,
    }
}
