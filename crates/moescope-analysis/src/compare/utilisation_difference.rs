//! How much more each expert is used in one run than in another.

use super::pair::Pair;
use super::usage::Use;
use super::{ComparisonMetric, Part};
use crate::data::LayerData;
use crate::metric::Need;
use crate::row::{Index, MetricRow};

/// Rows: layer x expert. Interval: bootstrap over sequences, those of runs of the same prompts together.
pub(super) const UTILISATION_DIFFERENCE: ComparisonMetric = ComparisonMetric {
    name: "utilisation_difference",
    title: "Difference of utilisation",
    unit: "ratio",
    formula: "c_e / c̄ of b less that of a, over all tokens of each",
    chance: "0",
    source: "Difference of the loads of `utilisation`, so that experts of layers with different E compare",
    part: Part::Routing,
    token_wise: false,
    needs: &[Need::Ids],
    of_each: None,
    compute: |pair| {
        Ok(pair.usage().iter().flat_map(|layer| layer.differences.iter().cloned()).collect())
    },
};

/// Rows of one layer.
pub(super) fn rows(pair: &Pair<'_>, layer: &LayerData, uses: &[Use; 2]) -> Vec<MetricRow> {
    let [before, after] = uses;
    let row = pair.row(&UTILISATION_DIFFERENCE, pair.base.overall());
    let resamples = &pair.fewer().resamples;
    (0..layer.experts)
        .map(|expert| {
            let of = |uses: &Use| -> Vec<f64> {
                uses.resampled.iter().skip(expert).step_by(layer.experts).copied().collect()
            };
            let value = after.shares[expert] - before.shares[expert];
            let mut values: Vec<f64> = std::iter::zip(of(after), of(before))
                .map(|(after, before)| after - before)
                .collect();
            MetricRow {
                layer: Some(layer.layer),
                index: Some(Index::Expert(expert as u16)),
                value,
                interval: resamples.interval(value, &mut values, (f64::MIN, f64::MAX)),
                chance: Some(0.0),
                ..row.clone()
            }
        })
        .collect()
}
