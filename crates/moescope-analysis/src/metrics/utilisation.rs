//! How much each expert is used, relative to an even share.

use crate::counts::{LayerCounts, column_sums};
use crate::data::LayerData;
use crate::metric::{Group, Metric, Need};
use crate::parallel;
use crate::row::{Index, MetricRow};
use crate::study::{Scope, Study};

/// Rows: layer x expert; layer x phase x expert. Interval: bootstrap over sequences.
pub(crate) const UTILISATION: Metric = Metric {
    name: "utilisation",
    title: "Expert utilisation",
    group: Group::Balance,
    unit: "ratio",
    formula: "c_e / c̄, c̄ = kT/E; 1 is an even share, the sum over experts is E",
    chance: "1",
    source: "Load of an expert over the uniform load, as in the balance losses since Shazeer et al. \
             2017 (arXiv 1701.06538)",
    needs: &[Need::Ids],
    compute,
};

fn compute(study: &Study<'_>) -> Vec<MetricRow> {
    parallel::map(&study.counted(), |(layer, counts)| {
        study.phases().flat_map(|scope| of_scope(study, layer, counts, scope)).collect::<Vec<_>>()
    })
    .concat()
}

fn of_scope(
    study: &Study<'_>,
    layer: &LayerData,
    counts: &LayerCounts,
    scope: &Scope,
) -> Vec<MetricRow> {
    let experts = layer.experts;
    let rows = counts.rows(&scope.units, scope.phase);
    let Some(estimate) = shares(&column_sums(&rows, experts)) else {
        return Vec::new();
    };
    let mut resampled = resampled_shares(&rows, experts, scope);
    let row = study.row(UTILISATION.name, UTILISATION.unit, scope);
    (0..)
        .zip(&estimate)
        .zip(&mut resampled)
        .map(|((expert, &value), values)| MetricRow {
            layer: Some(layer.layer),
            index: Some(Index::Expert(expert)),
            value,
            interval: scope.resamples.interval(value, values, (0.0, experts as f64)),
            chance: Some(1.0),
            ..row.clone()
        })
        .collect()
}

/// Counts over their mean, `[E]`; `None` where nothing was selected.
pub(crate) fn shares(counts: &[f64]) -> Option<Vec<f64>> {
    let mean = counts.iter().sum::<f64>() / counts.len() as f64;
    (mean > 0.0).then(|| counts.iter().map(|count| count / mean).collect())
}

/// Utilisation of each expert in each resample, `[E][R]`.
pub(crate) fn resampled_shares(rows: &[f64], experts: usize, scope: &Scope) -> Vec<Vec<f64>> {
    let mut resampled = vec![Vec::with_capacity(scope.resamples.len()); experts];
    scope.resamples.each_sum(scope.resamples.len(), rows, experts, |_, sums| {
        if let Some(shares) = shares(sums) {
            for (values, share) in resampled.iter_mut().zip(shares) {
                values.push(share);
            }
        }
    });
    resampled
}
