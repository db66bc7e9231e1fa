//! Two runs side by side: how use of the experts differs, and where single tokens went elsewhere.

use std::fmt;

use crate::bootstrap::Resamples;
use crate::counts::{LayerCounts, column_sums};
use crate::data::{LayerData, NO_EXPERT, RunData};
use crate::metrics::{resampled_shares, shares};
use crate::options::Options;
use crate::parallel;
use crate::ratio::RatioSums;
use crate::row::{Index, MetricRow};
use crate::study::{Scope, Study};

/// A run compared with a base.
///
/// Rows, all with 95 % bootstrap intervals over sequences where there are enough of them:
///
/// | metric | coordinates | value | chance |
/// |---|---|---|---|
/// | `utilisation_difference` | layer, expert | c_e / c̄ of the other run minus that of the base | 0 |
/// | `routing_overlap` | layer; none (mean over layers) | mean over tokens of abs(S_a ∩ S_b) / k | k/E |
/// | `same_experts` | layer; none (mean over layers) | share of tokens with S_a = S_b | 1 / (E choose k) |
///
/// Routing overlap is what OLMoE calls router saturation when the runs are two checkpoints
/// (Muennighoff et al. 2024, arXiv 2409.02060).
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Index of the base among the runs analysed together.
    pub base: usize,
    /// Index of the other run.
    pub other: usize,
    /// Name of the base.
    pub base_name: String,
    /// Name of the other run.
    pub other_name: String,
    /// Why there are no `utilisation_difference` rows, if there are none.
    pub utilisation: Option<Refusal>,
    /// On how many tokens `routing_overlap` and `same_experts` rest.
    pub token_wise: TokenWise,
    /// The rows.
    pub rows: Vec<MetricRow>,
}

/// Whether tokens could be compared one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenWise {
    /// Tokens compared: those before which both runs read the same tokens.
    Compared {
        /// Number of them.
        tokens: usize,
        /// Tokens of the base that the other run does not have or that come after a difference: what
        /// the runs generated may part ways, and from there on the contexts differ.
        left_out: usize,
    },
    /// Not compared.
    Refused(Refusal),
}

/// Why two runs, or a part of them, are not compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A run recorded no routing.
    NoRouting,
    /// The MoE layers differ in number, experts or experts per token.
    Shape,
    /// The prompt sets differ.
    Prompts,
    /// The prompt sets have the same hash, yet a prompt token differs.
    PromptToken {
        /// Sequence of the first such token.
        sequence: u32,
        /// Its position.
        position: u32,
    },
    /// No sequence is in both runs.
    NothingInCommon,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoRouting => f.write_str("a run recorded no routing"),
            Refusal::Shape => f.write_str(
                "the models differ in their MoE layers: layers, experts or experts per token",
            ),
            Refusal::Prompts => f.write_str(
                "the prompt sets differ; record both runs from the same prompts to compare tokens",
            ),
            Refusal::PromptToken { sequence, position } => write!(
                f,
                "the prompts have the same hash, but sequence {sequence} differs at position \
                 {position}: a run directory was edited or mixes two runs"
            ),
            Refusal::NothingInCommon => f.write_str("no sequence is in both runs"),
        }
    }
}

/// Compares a run with a base. The names and indices of the result are those of the data and
/// (0, 1).
pub fn compare(base: &RunData, other: &RunData, options: &Options) -> Comparison {
    let mut comparison = Comparison {
        base: 0,
        other: 1,
        base_name: base.name.clone(),
        other_name: other.name.clone(),
        utilisation: None,
        token_wise: TokenWise::Refused(Refusal::NoRouting),
        rows: Vec::new(),
    };
    if base.layers.is_empty() || other.layers.is_empty() || base.is_empty() || other.is_empty() {
        comparison.utilisation = Some(Refusal::NoRouting);
        return comparison;
    }
    let shape = |data: &RunData| -> Vec<(u16, usize, usize)> {
        data.layers.iter().map(|layer| (layer.layer, layer.experts, layer.top_k)).collect()
    };
    if shape(base) != shape(other) {
        comparison.utilisation = Some(Refusal::Shape);
        comparison.token_wise = TokenWise::Refused(Refusal::Shape);
        return comparison;
    }
    let study = Study::new(base, options);
    comparison.rows = utilisation_difference(&study, &Study::new(other, options));
    match common_tokens(base, other) {
        Err(refusal) => comparison.token_wise = TokenWise::Refused(refusal),
        Ok(spans) => {
            let tokens = spans.iter().map(|span| span.tokens).sum();
            let left_out = base.len() - tokens;
            comparison.token_wise = TokenWise::Compared { tokens, left_out };
            comparison.rows.extend(overlaps(&study, other, &spans));
        }
    }
    comparison
}

/// The difference of utilisation. Runs over the same sequences are resampled together, so that
/// what a prompt does to both does not count as a difference.
fn utilisation_difference(base: &Study<'_>, other: &Study<'_>) -> Vec<MetricRow> {
    let ids = |study: &Study<'_>| -> Vec<(u32, u16)> {
        study.data.sequences.iter().map(|sequence| (sequence.id, sequence.domain)).collect()
    };
    let paired = base.data.manifest.prompts_hash == other.data.manifest.prompts_hash
        && ids(base) == ids(other);
    let scope = other.overall();
    let apart = Scope {
        resamples: Resamples::new(scope.units.len(), other.options.resamples, !other.options.seed)
            .into(),
        ..scope.clone()
    };
    let scope = if paired { scope } else { &apart };

    let layers: Vec<_> = std::iter::zip(base.counted(), other.counts()).collect();
    let of_layer = |(layer, before, after): (&LayerData, &LayerCounts, &LayerCounts)| {
        let experts = layer.experts;
        let before_rows = before.rows(&base.overall().units, None);
        let after_rows = after.rows(&scope.units, None);
        let (Some(before), Some(after)) = (
            shares(&column_sums(&before_rows, experts)),
            shares(&column_sums(&after_rows, experts)),
        ) else {
            return Vec::new();
        };
        let before_resampled = resampled_shares(&before_rows, experts, base.overall());
        let after_resampled = resampled_shares(&after_rows, experts, scope);
        let fewer = std::cmp::min_by_key(base.overall(), scope, |scope| scope.units.len());
        let row = base.row("utilisation_difference", "ratio", base.overall());
        (0..experts)
            .map(|expert| {
                let value = after[expert] - before[expert];
                let mut values: Vec<f64> =
                    std::iter::zip(&before_resampled[expert], &after_resampled[expert])
                        .map(|(before, after)| after - before)
                        .collect();
                MetricRow {
                    layer: Some(layer.layer),
                    index: Some(Index::Expert(expert as u16)),
                    value,
                    interval: fewer.resamples.interval(value, &mut values, (f64::MIN, f64::MAX)),
                    chance: Some(0.0),
                    ..row.clone()
                }
            })
            .collect()
    };
    parallel::map(&layers, |&((layer, before), after)| of_layer((layer, before, after))).concat()
}

/// Tokens of one sequence that both runs read after the same tokens.
struct Span {
    /// Index of the sequence in the base.
    sequence: usize,
    /// First token in the base.
    base: usize,
    /// First token in the other run.
    other: usize,
    tokens: usize,
}

fn common_tokens(base: &RunData, other: &RunData) -> Result<Vec<Span>, Refusal> {
    if base.manifest.prompts_hash != other.manifest.prompts_hash {
        return Err(Refusal::Prompts);
    }
    let mut spans = Vec::new();
    let mut others = other.sequences.iter().peekable();
    // Both lists ascend by id.
    for (index, a) in base.sequences.iter().enumerate() {
        while others.next_if(|b| b.id < a.id).is_some() {}
        let Some(b) = others.next_if(|b| b.id == a.id) else {
            continue;
        };
        let most = (a.end - a.start).min(b.end - b.start);
        let (x, y) = (&base.tokens, &other.tokens);
        let same = (0..most)
            .take_while(|&at| {
                let (i, j) = (a.start + at, b.start + at);
                x.position[i] == y.position[j] && x.token_id[i] == y.token_id[j]
            })
            .count();
        let prompt = |tokens: &crate::data::TokenData, at: usize| {
            tokens.phase[at] == moescope_trace::Phase::Prefill
        };
        if same < most && prompt(x, a.start + same) && prompt(y, b.start + same) {
            let position = x.position[a.start + same];
            return Err(Refusal::PromptToken { sequence: a.id, position });
        }
        spans.push(Span { sequence: index, base: a.start, other: b.start, tokens: same });
    }
    if spans.iter().all(|span| span.tokens == 0) {
        return Err(Refusal::NothingInCommon);
    }
    Ok(spans)
}

/// Rows of `routing_overlap` and `same_experts`, by layer and as means over layers.
fn overlaps(study: &Study<'_>, other: &RunData, spans: &[Span]) -> Vec<MetricRow> {
    let base = study.data;
    let layers: Vec<(&LayerData, &LayerData)> = base.layers.iter().zip(&other.layers).collect();
    let sums: Vec<[RatioSums; 2]> = parallel::map(&layers, |(a, b)| {
        let groups = study.groups.len();
        let mut sums = [RatioSums::new(groups), RatioSums::new(groups)];
        for span in spans {
            let group = study.groups.of_sequence(span.sequence);
            for at in 0..span.tokens {
                let (x, y) = (a.experts_of(span.base + at), b.experts_of(span.other + at));
                if x.first() == Some(&NO_EXPERT) || y.first() == Some(&NO_EXPERT) {
                    continue;
                }
                // Empty places count as shared: both sets end there.
                let shared = x.iter().filter(|expert| y.contains(expert)).count();
                let phase = base.tokens.phase[span.base + at];
                sums[0].add(group, phase, shared as f64 / x.len() as f64, 1.0);
                sums[1].add(group, phase, f64::from(u8::from(shared == x.len())), 1.0);
            }
        }
        sums
    });

    let scope = study.overall();
    let mut rows = Vec::new();
    for (at, metric) in ["routing_overlap", "same_experts"].into_iter().enumerate() {
        let row = study.row(metric, "ratio", scope);
        let chance = |layer: &LayerData| {
            if at == 0 {
                layer.top_k as f64 / layer.experts as f64
            } else {
                1.0 / sets(layer.experts, layer.top_k)
            }
        };
        let mut whole = RatioSums::new(study.groups.len());
        let mut mean_chance = 0.0;
        for ((layer, _), sums) in layers.iter().zip(&sums) {
            whole.add_all(&sums[at]);
            mean_chance += chance(layer) / layers.len() as f64;
            if let Some((value, interval)) = sums[at].ratio(scope, (0.0, 1.0)) {
                rows.push(MetricRow {
                    layer: Some(layer.layer),
                    value,
                    interval,
                    chance: Some(chance(layer)),
                    ..row.clone()
                });
            }
        }
        if let Some((value, interval)) = whole.ratio(scope, (0.0, 1.0)) {
            rows.push(MetricRow { value, interval, chance: Some(mean_chance), ..row });
        }
    }
    rows
}

/// Number of sets of k out of E.
fn sets(experts: usize, top_k: usize) -> f64 {
    (0..top_k.min(experts)).map(|place| (experts - place) as f64 / (place + 1) as f64).product()
}

impl Comparison {
    /// Rows of a metric by layer.
    pub fn by_layer<'a, 'm>(
        &'a self,
        metric: &'m str,
    ) -> impl Iterator<Item = (u16, &'a MetricRow)> + use<'a, 'm> {
        self.rows
            .iter()
            .filter(move |row| row.metric == metric && row.index.is_none())
            .filter_map(|row| Some((row.layer?, row)))
    }

    /// The row of a metric over all layers.
    pub fn overall(&self, metric: &str) -> Option<&MetricRow> {
        self.rows.iter().find(|row| row.metric == metric && row.layer.is_none())
    }

    /// Difference of utilisation as layers x experts; `None` where it was refused.
    pub fn difference(&self) -> Option<crate::Matrix> {
        let mut matrix = crate::Matrix { layers: Vec::new(), values: Vec::new() };
        for row in self.rows.iter().filter(|row| row.metric == "utilisation_difference") {
            let layer = row.layer?;
            if matrix.layers.last() != Some(&layer) {
                matrix.layers.push(layer);
                matrix.values.push(Vec::new());
            }
            matrix.values.last_mut()?.push(row.value);
        }
        (!matrix.layers.is_empty()).then_some(matrix)
    }
}
