//! Two runs side by side: how use of the experts differs, and where single tokens went elsewhere.

mod output;
mod refusal;
mod speed;
mod tokens;

use moescope_trace::Phase;

pub use refusal::Refusal;
pub(crate) use speed::machine_differences;
use tokens::{Span, common_tokens};

use crate::bootstrap::Resamples;
use crate::chance::sets;
use crate::counts::{LayerCounts, column_sums};
use crate::data::{LayerData, NO_EXPERT, RunData};
use crate::metrics::{jensen_shannon, resampled_shares, shares};
use crate::options::Options;
use crate::parallel;
use crate::ratio::RatioSums;
use crate::row::{Index, MetricRow};
use crate::study::{Scope, Study};

/// Rows over the tokens that both runs read after the same tokens.
type TokenWiseRows = fn(&Study<'_>, &RunData, &[Span]) -> Result<Vec<MetricRow>, Refusal>;
/// Layer, shift of its distribution, its resamples and its chance level.
type LayerShift = (u16, f64, Vec<f64>, f64);

/// A run compared with a base.
///
/// Rows, all with 95 % bootstrap intervals over sequences where there are enough of them:
///
/// | metric | coordinates | value | chance |
/// |---|---|---|---|
/// | `utilisation_difference` | layer, expert | c_e / c̄ of the other run minus that of the base | 0 |
/// | `routing_overlap` | layer; none (mean over layers) | mean over tokens of abs(S_a ∩ S_b) / k | k/E |
/// | `same_experts` | layer; none (mean over layers) | share of tokens with S_a = S_b | 1 / (E choose k) |
/// | `top1_flips` | layer; none (mean over layers) | share of tokens whose first choice differs | 1 - 1/E |
/// | `distribution_shift` | layer; none (mean over layers) | Jensen-Shannon divergence of p_e, nats | 0; for different sequences what sampling alone shows |
/// | `equal_tokens` | none | tokens generated before the first that differs / tokens of the longer generation | |
/// | `logprob_difference` | none | mean absolute difference of log-probabilities, nats | |
/// | `logprob_change` | none | mean of the other run's log-probabilities minus the base's, nats | |
/// | `speed_ratio` | phase | tokens per second over those of the base | 1 |
/// | `bytes_in_use_ratio`, `bytes_reserved_ratio`, `rss_ratio` | none | peak of a sequence over that in the base | 1 |
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
    /// On how many tokens `routing_overlap`, `same_experts`, `top1_flips` and the log-probabilities rest.
    pub token_wise: TokenWise,
    /// Parts without rows, and why: `output`, `log-probabilities`, `speed`.
    pub missing: Vec<(&'static str, Refusal)>,
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

/// Compares a run with a base. The names and indices of the result are those of the data and
/// (0, 1). Speed is compared on one machine only.
pub fn compare(base: &RunData, other: &RunData, options: &Options) -> Comparison {
    compare_across(base, other, options, false)
}

/// As [`compare`]; `across_machines` compares speed even where devices, drivers or hosts differ.
pub fn compare_across(
    base: &RunData,
    other: &RunData,
    options: &Options,
    across_machines: bool,
) -> Comparison {
    let mut comparison = Comparison {
        base: 0,
        other: 1,
        base_name: base.name.clone(),
        other_name: other.name.clone(),
        utilisation: None,
        token_wise: TokenWise::Refused(Refusal::NoRouting),
        missing: Vec::new(),
        rows: Vec::new(),
    };
    let study = Study::new(base, options);
    let spans = common_tokens(base, other);
    routing(&mut comparison, &study, &Study::new(other, options), &spans);
    let output =
        |compare: TokenWiseRows| compare(&study, other, spans.as_ref().map_err(Clone::clone)?);
    for (part, rows) in [
        ("output", output(output::equal_tokens)),
        ("log-probabilities", output(output::logprobs)),
        ("speed", speed::speed(&study, other, across_machines)),
        ("memory", Ok(speed::memory(&study, other))),
    ] {
        match rows {
            Ok(rows) => comparison.rows.extend(rows),
            Err(refusal) => comparison.missing.push((part, refusal)),
        }
    }
    comparison
}

/// Rows about routing, and why there are none.
fn routing(
    comparison: &mut Comparison,
    base: &Study<'_>,
    other: &Study<'_>,
    spans: &Result<Vec<Span>, Refusal>,
) {
    let recorded = |study: &Study<'_>| !study.data.layers.is_empty() && !study.data.is_empty();
    let shape = |study: &Study<'_>| -> Vec<(u16, usize, usize)> {
        let layers = study.data.layers.iter();
        layers.map(|layer| (layer.layer, layer.experts, layer.top_k)).collect()
    };
    let refusal = match (recorded(base) && recorded(other), shape(base) == shape(other)) {
        (true, true) => None,
        (true, false) => Some(Refusal::Shape),
        (false, _) => Some(Refusal::NoRouting),
    };
    if let Some(refusal) = refusal {
        comparison.utilisation = Some(refusal.clone());
        comparison.token_wise = TokenWise::Refused(refusal);
        return;
    }
    let pair = Pair::new(base, other);
    comparison.rows.extend(pair.utilisation_difference());
    comparison.rows.extend(pair.distribution_shift());
    match spans {
        Err(refusal) => comparison.token_wise = TokenWise::Refused(refusal.clone()),
        Ok(spans) => {
            let tokens = spans.iter().map(|span| span.tokens).sum();
            let left_out = base.data.len() - tokens;
            comparison.token_wise = TokenWise::Compared { tokens, left_out };
            comparison.rows.extend(overlaps(base, other.data, spans));
        }
    }
}

/// Use of the experts in two runs. Runs over the same sequences are resampled together, so that what
/// a prompt does to both does not count as a difference.
struct Pair<'s, 'a> {
    base: &'s Study<'a>,
    other: &'s Study<'a>,
    /// The whole of the other run, with draws of its own where the sequences differ.
    scope: Scope,
    paired: bool,
}

impl<'s, 'a> Pair<'s, 'a> {
    fn new(base: &'s Study<'a>, other: &'s Study<'a>) -> Self {
        let ids = |study: &Study<'_>| -> Vec<(u32, u16)> {
            study.data.sequences.iter().map(|sequence| (sequence.id, sequence.domain)).collect()
        };
        let paired = base.data.manifest.prompts_hash == other.data.manifest.prompts_hash
            && ids(base) == ids(other);
        let mut scope = other.overall().clone();
        if !paired {
            let options = other.options;
            scope.resamples =
                Resamples::new(scope.units.len(), options.resamples, !options.seed).into();
        }
        Self { base, other, scope, paired }
    }

    /// The scope with fewer sequences: how far an interval can be trusted.
    fn fewer(&self) -> &Scope {
        std::cmp::min_by_key(self.base.overall(), &self.scope, |scope| scope.units.len())
    }

    /// Jensen-Shannon divergence of the use of experts, by layer and as the mean over layers.
    fn distribution_shift(&self) -> Vec<MetricRow> {
        let layers: Vec<_> = std::iter::zip(self.base.counted(), self.other.counts()).collect();
        // Shares sum to E, distributions to 1.
        let divergence = |p: &[f64], q: &[f64]| {
            let distribution =
                |shares: &[f64]| shares.iter().map(|s| s / shares.len() as f64).collect::<Vec<_>>();
            jensen_shannon(&distribution(p), &distribution(q))
        };
        let of_layer = |((layer, before), after): &((&LayerData, &LayerCounts), &LayerCounts)| {
            let experts = layer.experts;
            let units = [&self.base.overall().units, &self.scope.units];
            let rows = [before.rows(units[0], None), after.rows(units[1], None)];
            let [p, q] = [&rows[0], &rows[1]].map(|rows| shares(&column_sums(rows, experts)));
            let value = divergence(&p?, &q?);
            let count = self.base.overall().resamples.len().min(self.scope.resamples.len());
            let mut sums = [vec![0.0; experts], vec![0.0; experts]];
            let resampled: Vec<f64> = (0..count)
                .map(|r| {
                    self.base.overall().resamples.sums(r, &rows[0], &mut sums[0]);
                    self.scope.resamples.sums(r, &rows[1], &mut sums[1]);
                    match (shares(&sums[0]), shares(&sums[1])) {
                        (Some(p), Some(q)) => divergence(&p, &q),
                        _ => f64::NAN,
                    }
                })
                .collect();
            // To first order in 1/T, as for `domain_divergence`.
            let noise = (experts as f64 - layer.top_k as f64) / (8.0 * layer.top_k as f64);
            let tokens = |counts: &LayerCounts, units| -> f64 {
                counts.tokens(units, None).iter().sum::<f64>()
            };
            let chance = match self.paired {
                true => 0.0,
                false => noise * (1.0 / tokens(before, units[0]) + 1.0 / tokens(after, units[1])),
            };
            Some((layer.layer, value, resampled, chance.min(std::f64::consts::LN_2)))
        };
        let found: Vec<_> = parallel::map(&layers, of_layer).into_iter().flatten().collect();
        let row = self.base.row("distribution_shift", "nats", self.base.overall());
        let to_row = |layer, value, mut resampled: Vec<f64>, chance| MetricRow {
            layer,
            value,
            interval: self.fewer().resamples.interval(
                value,
                &mut resampled,
                (0.0, std::f64::consts::LN_2),
            ),
            chance: Some(chance),
            ..row.clone()
        };
        let mean = |of: &dyn Fn(&LayerShift) -> f64| {
            found.iter().map(of).sum::<f64>() / found.len().max(1) as f64
        };
        let draws = found.first().map_or(0, |(_, _, resampled, _)| resampled.len());
        let whole = (!found.is_empty()).then(|| {
            let resampled = (0..draws).map(|r| mean(&|layer| layer.2[r])).collect();
            to_row(None, mean(&|layer| layer.1), resampled, mean(&|layer| layer.3))
        });
        let by_layer = found
            .iter()
            .map(|(layer, value, resampled, chance)| {
                to_row(Some(*layer), *value, resampled.clone(), *chance)
            })
            .collect::<Vec<_>>();
        by_layer.into_iter().chain(whole).collect()
    }

    /// c_e / c̄ of the other run minus that of the base.
    fn utilisation_difference(&self) -> Vec<MetricRow> {
        let Self { base, other, scope, .. } = self;
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
            let fewer = self.fewer();
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
                        interval: fewer.resamples.interval(
                            value,
                            &mut values,
                            (f64::MIN, f64::MAX),
                        ),
                        chance: Some(0.0),
                        ..row.clone()
                    }
                })
                .collect()
        };
        parallel::map(&layers, |&((layer, before), after)| of_layer((layer, before, after)))
            .concat()
    }
}

/// Rows of `routing_overlap`, `same_experts` and `top1_flips`, by layer and as means over layers.
fn overlaps(study: &Study<'_>, other: &RunData, spans: &[Span]) -> Vec<MetricRow> {
    let base = study.data;
    let layers: Vec<(&LayerData, &LayerData)> = base.layers.iter().zip(&other.layers).collect();
    let sums: Vec<[RatioSums; 3]> = parallel::map(&layers, |(a, b)| {
        let groups = study.groups.len();
        let mut sums = [(); 3].map(|()| RatioSums::new(groups));
        for span in spans {
            let group = study.groups.of_sequence(span.sequence);
            for at in 0..span.tokens {
                let (x, y) = (a.experts_of(span.base + at), b.experts_of(span.other + at));
                if x.first() == Some(&NO_EXPERT) || y.first() == Some(&NO_EXPERT) {
                    continue;
                }
                // Empty places count as shared: both sets end there.
                let shared = x.iter().filter(|expert| y.contains(expert)).count();
                let phase: Phase = base.tokens.phase[span.base + at];
                sums[0].add(group, phase, shared as f64 / x.len() as f64, 1.0);
                sums[1].add(group, phase, f64::from(u8::from(shared == x.len())), 1.0);
                sums[2].add(group, phase, f64::from(u8::from(x.first() != y.first())), 1.0);
            }
        }
        sums
    });

    let scope = study.overall();
    let mut rows = Vec::new();
    for (at, metric) in ["routing_overlap", "same_experts", "top1_flips"].into_iter().enumerate() {
        let row = study.row(metric, "ratio", scope);
        let chance = |layer: &LayerData| match at {
            0 => layer.top_k as f64 / layer.experts as f64,
            1 => 1.0 / sets(layer.experts, layer.top_k),
            _ => 1.0 - 1.0 / layer.experts as f64,
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
