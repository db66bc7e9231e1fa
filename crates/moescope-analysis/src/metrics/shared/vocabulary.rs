//! Whether experts belong to tokens: how surely the id of a token tells one of its experts.

use crate::chance::ExpectedMaximum;
use crate::data::LayerData;
use crate::metric::Metric;
use crate::occurrences::{Occurrences, Which};
use crate::parallel;
use crate::row::MetricRow;
use crate::study::Study;

/// Fewest occurrences of an id that counts.
const LEAST: usize = 10;

/// Specialists kept per layer.
const KEPT: usize = 24;

/// A token id whose occurrences agree on an expert.
#[derive(Clone, Debug, PartialEq)]
pub struct Specialist {
    /// Token id.
    pub token_id: u32,
    /// Its text, where recorded; empty where not. Untrusted: escape it where it is shown.
    pub text: String,
    /// The expert it selects most often.
    pub expert: u16,
    /// Occurrences, N(x).
    pub occurrences: u32,
    /// Share of them that selected the expert.
    pub share: f64,
    /// What that share would be by chance: the largest of E.
    pub chance: f64,
}

/// The ids of one layer whose share is most surely above chance, first the surest.
#[derive(Clone, Debug, PartialEq)]
pub struct Specialists {
    /// Model layer.
    pub layer: u16,
    /// For the input token.
    pub input: Vec<Specialist>,
    /// For the token that follows.
    pub next: Vec<Specialist>,
}

/// One layer.
pub(crate) struct LayerVocabulary {
    /// By scope.
    means: Vec<Mean>,
    /// Of the whole run.
    specialists: Vec<Specialist>,
}

/// The mean over ids with its chance level, and what each group moves the mean by, `[G]`.
struct Mean {
    estimate: Option<(f64, f64)>,
    influence: Vec<f64>,
}

impl LayerVocabulary {
    pub(crate) fn all(study: &Study<'_>, which: Which) -> Vec<Self> {
        // Those of the whole run first.
        let occurrences: Vec<Occurrences> =
            parallel::map(study.scopes(), |scope| Occurrences::new(study, scope, which));
        // The groups of the tokens: their ids take them all over the run.
        let mut group_of = vec![0u32; study.data.len()];
        for (index, sequence) in study.data.sequences.iter().enumerate() {
            group_of[sequence.start..sequence.end].fill(study.groups.of_sequence(index) as u32);
        }
        // Layers of one shape share their chance levels.
        let mut shapes: Vec<(usize, usize)> =
            study.data.layers.iter().map(|layer| (layer.experts, layer.top_k)).collect();
        shapes.sort_unstable();
        shapes.dedup();
        let sizes = || {
            let frequent = occurrences.iter().flat_map(|scope| scope.frequent(LEAST));
            frequent.map(|(_, tokens)| tokens.len() as u32)
        };
        let maxima: Vec<ExpectedMaximum> = parallel::map(&shapes, |&(experts, top_k)| {
            ExpectedMaximum::new(experts, top_k, study.maxima(experts, top_k), sizes())
        });
        parallel::map(&study.data.layers, |layer| {
            let shape = shapes.binary_search(&(layer.experts, layer.top_k));
            // Found: every layer's shape is in the list.
            let maximum = &maxima[shape.unwrap_or(0)];
            let mut specialists = Vec::new();
            let means = std::iter::zip(study.scopes(), &occurrences)
                .map(|(scope, occurrences)| {
                    let found = scope.is_whole().then_some(&mut specialists);
                    Mean::new(study, layer, occurrences, &group_of, maximum, found)
                })
                .collect();
            let texts = study.data.tokens.texts.as_ref();
            let named = |(_, first, specialist): Candidate| {
                let text = texts.map_or_else(String::new, |texts| {
                    texts.of(first as usize + which as usize).to_owned()
                });
                Specialist { text, ..specialist }
            };
            Self { means, specialists: specialists.into_iter().map(named).collect() }
        })
    }

    pub(crate) fn specialists(&self) -> &[Specialist] {
        &self.specialists
    }
}

/// How far above chance it is at least, its first token, and the specialist without its text.
type Candidate = (f64, u32, Specialist);

impl Mean {
    /// `specialists` gets the ids furthest above chance.
    fn new(
        study: &Study<'_>,
        layer: &LayerData,
        occurrences: &Occurrences,
        group_of: &[u32],
        maximum: &ExpectedMaximum,
        mut specialists: Option<&mut Vec<Candidate>>,
    ) -> Self {
        let mut influence = vec![0.0; study.groups.len()];
        let mut counts = vec![0u32; layer.experts];
        let (mut shares, mut chances, mut ids) = (0.0, 0.0, 0u32);
        for (token_id, tokens) in occurrences.frequent(LEAST) {
            counts.fill(0);
            let mut routed = 0u32;
            for &token in tokens {
                let experts = layer.selected(token as usize);
                routed += u32::from(!experts.is_empty());
                for &expert in experts {
                    counts[usize::from(expert)] += 1;
                }
            }
            if (routed as usize) < LEAST {
                continue;
            }
            let Some((expert, &most)) =
                counts.iter().enumerate().rev().max_by_key(|(_, count)| **count)
            else {
                continue;
            };
            let share = f64::from(most) / f64::from(routed);
            let chance = maximum.of(routed) / f64::from(routed);
            shares += share;
            chances += chance;
            ids += 1;
            for &token in tokens {
                let experts = layer.selected(token as usize);
                if !experts.is_empty() {
                    let took = f64::from(u8::from(experts.contains(&(expert as u16))));
                    influence[group_of[token as usize] as usize] +=
                        (took - share) / f64::from(routed);
                }
            }
            let Some(specialists) = &mut specialists else {
                continue;
            };
            let expert = expert as u16;
            let text = String::new();
            let found = Specialist { token_id, text, expert, occurrences: routed, share, chance };
            specialists.push((lower_bound(share, routed) - chance, tokens[0], found));
            // Now and then, so that memory does not grow with the vocabulary.
            if specialists.len() >= 64 * KEPT {
                keep(specialists);
            }
        }
        if let Some(specialists) = specialists {
            keep(specialists);
        }
        let count = f64::from(ids.max(1));
        Self {
            estimate: (ids > 0).then_some((shares / count, chances / count)),
            influence: influence.into_iter().map(|sum| sum / count).collect(),
        }
    }
}

/// Keeps those furthest above chance.
fn keep(specialists: &mut Vec<Candidate>) {
    specialists.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.2.token_id.cmp(&b.2.token_id)));
    specialists.truncate(KEPT);
}

/// Lower end of the 95 % interval of a share of n (Wilson 1927).
fn lower_bound(share: f64, n: u32) -> f64 {
    let (z, n) = (crate::bootstrap::Z, f64::from(n));
    let spread = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    (share + z * z / (2.0 * n) - spread) / (1.0 + z * z / n)
}

/// Rows of one of the two metrics.
pub(crate) fn rows(study: &Study<'_>, metric: &Metric, which: Which) -> Vec<MetricRow> {
    let mut rows = Vec::new();
    for (layer, vocabulary) in study.data.layers.iter().zip(study.vocabulary(which)) {
        for (scope, mean) in study.scopes().iter().zip(&vocabulary.means) {
            let Some((value, chance)) = mean.estimate else {
                continue;
            };
            let influence = scope.of_units(&mean.influence);
            rows.push(MetricRow {
                layer: Some(layer.layer),
                value,
                interval: scope.resamples.linear_interval(value, &influence, (0.0, 1.0)),
                chance: Some(chance),
                ..study.row(metric.name, metric.unit, scope)
            });
        }
    }
    rows
}
