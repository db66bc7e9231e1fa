//! Every transition from the first choice in a layer to that in the next MoE layer.

use super::cells::{column_draws, each_cell};
use crate::metric::{Group, Metric, Need};
use crate::parallel;
use crate::ratio::with_rare_events;
use crate::row::{Index, MetricRow};
use crate::study::Study;
use crate::transitions::{first_choices, neighbours};

/// Rows: layer x pair (i, j): from expert i of the layer, where it was a first choice, to expert j of the next
/// MoE layer. Interval: bootstrap over sequences, no narrower than rare events allow.
pub(super) const EXPERT_PATH: Metric = Metric {
    name: "expert_path",
    title: "All expert paths",
    group: Group::Structure,
    unit: "ratio",
    formula: "P(first choice j in the next MoE layer given first choice i in this one) over all tokens, for every i \
              and j",
    chance: "1/E of the next layer",
    source: "Inter-layer expert affinity (ExFlow, Yao et al. 2024, arXiv 2401.08383)",
    needs: &[Need::Ids, Need::Layers],
    compute: |study| parallel::map(&neighbours(study), |&place| of_layer(study, place)).concat(),
};

/// Rows of the layer at a place among the layers of the run, and the one after it.
fn of_layer(study: &Study<'_>, place: usize) -> Vec<MetricRow> {
    let (from, to) = (&study.data.layers[place], &study.data.layers[place + 1]);
    let steps = || {
        study.stretches(study.overall()).flat_map(|(group, run)| {
            run.filter_map(move |token| Some((group, first_choices(from, to, token)?)))
        })
    };
    // Tokens that have each i as their first choice, `[G, E]`.
    let mut leaving = vec![0.0; study.groups.len() * from.experts];
    for (group, (i, _)) in steps() {
        leaving[group * from.experts + i] += 1.0;
    }
    let (leaving, leaving_drawn) = column_draws(study, &leaving, from.experts);
    let row = study.row(EXPERT_PATH.name, EXPERT_PATH.unit, study.overall());
    let resamples = &study.overall().resamples;
    let mut rows = Vec::new();
    each_cell(
        study,
        [from.experts, to.experts],
        |i, _| leaving[i] > 0.0,
        |cells| steps().for_each(|(group, (i, j))| cells.add(group, i, j)),
        |i, j, taken, drawn| {
            let value = taken / leaving[i];
            let values = std::iter::zip(drawn, &leaving_drawn[i]).map(|(taken, all)| taken / all);
            let interval = resamples.interval(value, &mut values.collect(), (0.0, 1.0));
            rows.push(MetricRow {
                layer: Some(from.layer),
                index: Some(Index::Pair(i as u16, j as u16)),
                value,
                interval: with_rare_events(interval, taken, leaving[i]),
                chance: Some(1.0 / to.experts as f64),
                ..row.clone()
            });
        },
    );
    rows
}
