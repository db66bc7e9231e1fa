//! Co-activation of every pair of experts of a layer.

use super::cells::{column_draws, each_cell};
use crate::data::LayerData;
use crate::metric::{Group, Metric, Need};
use crate::metrics::uniform_lift;
use crate::parallel;
use crate::ratio::with_rare_events;
use crate::row::{Index, MetricRow};
use crate::study::Study;

/// Rows: layer x pair (i, j), i ≠ j, of experts that were selected. Interval: bootstrap over sequences, no
/// narrower than rare events allow.
pub(super) const COACTIVATION: Metric = Metric {
    name: "coactivation",
    title: "Co-activation of all pairs",
    group: Group::Structure,
    unit: "ratio",
    formula: "P(j given i) = N_ij / N_i over all tokens, for every pair of experts in both directions",
    chance: "(k-1)/(E-1)",
    source: "Muennighoff et al. 2024, OLMoE, section 5 (arXiv 2409.02060). The strongest of E (E-1) / 2 pairs of \
             noise looks strong too: without --all-pairs pairs are chosen and measured on different text",
    needs: &[Need::Ids],
    compute: |study| {
        rows(study, |pair, drawn, out| {
            let chance = (pair.layer.top_k as f64 - 1.0) / (pair.layer.experts as f64 - 1.0);
            for (i, j, of) in [(pair.i, pair.j, 0), (pair.j, pair.i, 1)] {
                let value = pair.both / pair.single[of];
                let values = std::iter::zip(drawn.both, drawn.single[of]).map(|(b, s)| b / s);
                let interval =
                    study.overall().resamples.interval(value, &mut values.collect(), (0.0, 1.0));
                out.push(MetricRow {
                    layer: Some(pair.layer.layer),
                    index: Some(Index::Pair(i as u16, j as u16)),
                    value,
                    interval: with_rare_events(interval, pair.both, pair.single[of]),
                    chance: Some(chance),
                    ..study.row(COACTIVATION.name, COACTIVATION.unit, study.overall())
                });
            }
        })
    },
};

/// Rows: layer x pair (i, j), i < j, of experts that were selected. Interval: bootstrap over sequences, no
/// narrower than rare events allow.
pub(super) const COACTIVATION_LIFT: Metric = Metric {
    name: "coactivation_lift",
    title: "Co-activation lift of all pairs",
    group: Group::Structure,
    unit: "ratio",
    formula: "P(j given i) / P(j) = N_ij T / (N_i N_j) over all tokens, for every unordered pair of experts",
    chance: "E (k-1) / (k (E-1)): a little below 1, since a token never selects an expert twice",
    source: "Lift of association rules (Brin, Motwani, Ullman and Tsur 1997), for pairs of experts",
    needs: &[Need::Ids],
    compute: |study| {
        rows(study, |pair, drawn, out| {
            let lift =
                |both: f64, tokens: f64, single: [f64; 2]| both * tokens / (single[0] * single[1]);
            let value = lift(pair.both, pair.tokens, pair.single);
            let values = (0..drawn.both.len()).map(|r| {
                lift(drawn.both[r], drawn.tokens[r], [drawn.single[0][r], drawn.single[1][r]])
            });
            let resamples = &study.overall().resamples;
            let interval = resamples.interval(value, &mut values.collect(), (0.0, f64::MAX));
            // As a share of tokens with both, given how many have either.
            let scale = pair.tokens * pair.tokens / (pair.single[0] * pair.single[1]);
            let share = interval.map(|(low, high)| (low / scale, high / scale));
            let interval = with_rare_events(share, pair.both, pair.tokens)
                .map(|(low, high)| (low * scale, high * scale));
            out.push(MetricRow {
                layer: Some(pair.layer.layer),
                index: Some(Index::Pair(pair.i as u16, pair.j as u16)),
                value,
                interval,
                chance: Some(uniform_lift(pair.layer.experts, pair.layer.top_k)),
                ..study.row(COACTIVATION_LIFT.name, COACTIVATION_LIFT.unit, study.overall())
            });
        })
    },
};

/// Two experts of a layer, i < j, both of which were selected.
struct PairOf<'s> {
    layer: &'s LayerData,
    i: usize,
    j: usize,
    /// Tokens with both, with i and with j, and in all.
    both: f64,
    single: [f64; 2],
    tokens: f64,
}

/// The same in each resample, `[R]`.
struct Drawn<'s> {
    both: &'s [f64],
    single: [&'s [f64]; 2],
    tokens: &'s [f64],
}

/// What `make` makes of every pair of every layer that selects more than one expert per token.
fn rows(
    study: &Study<'_>,
    make: impl Fn(&PairOf<'_>, &Drawn<'_>, &mut Vec<MetricRow>) + Sync,
) -> Vec<MetricRow> {
    let layers: Vec<_> = study
        .counted()
        .into_iter()
        .filter(|(layer, _)| layer.top_k > 1 && layer.experts <= Need::MAX_EXPERTS)
        .collect();
    parallel::map(&layers, |(layer, counts)| {
        let (experts, units) = (layer.experts, &study.overall().units);
        let (single, single_drawn) = column_draws(study, &counts.rows(units, None), experts);
        let (tokens, tokens_drawn) = column_draws(study, &counts.tokens(units, None), 1);
        let mut out = Vec::new();
        each_cell(
            study,
            [experts, experts],
            |i, j| i < j && single[i] > 0.0 && single[j] > 0.0,
            |cells| {
                for (group, run) in study.stretches(study.overall()) {
                    for token in run {
                        let selected = layer.selected(token);
                        for (rank, &a) in selected.iter().enumerate() {
                            for &b in &selected[rank + 1..] {
                                cells.add(group, usize::from(a.min(b)), usize::from(a.max(b)));
                            }
                        }
                    }
                }
            },
            |i, j, both, drawn| {
                let of = [single[i], single[j]];
                let pair = PairOf { layer, i, j, both, single: of, tokens: tokens[0] };
                let single = [single_drawn[i].as_slice(), &single_drawn[j]];
                make(&pair, &Drawn { both: drawn, single, tokens: &tokens_drawn[0] }, &mut out);
            },
        );
        out
    })
    .concat()
}
