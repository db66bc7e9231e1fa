//! Which experts two runs chose for the same tokens: read once, used by overlap, sets and flips.

use super::pair::Pair;
use super::tokens::Span;
use super::{ComparisonMetric, Refusal};
use crate::data::{LayerData, NO_EXPERT};
use crate::parallel;
use crate::ratio::{Estimate, RatioTable};
use crate::row::MetricRow;
use crate::study::Study;

/// The share of experts that both chose.
pub(super) const OVERLAP: usize = 0;
/// Whether they chose the same set.
pub(super) const SAME: usize = 1;
/// Whether their first choices differ.
pub(super) const FLIPPED: usize = 2;
/// How many these are.
const COLUMNS: usize = 3;

/// Estimates of the three in every scope of the base.
pub(super) struct Agreement {
    /// Of each layer and, last, of the mean over layers: by scope, then in the order of the constants above.
    layers: Vec<Vec<Vec<Option<Estimate>>>>,
}

impl Agreement {
    pub(super) fn new(pair: &Pair<'_>, spans: &[Span]) -> Self {
        let study = pair.base;
        let layers: Vec<(&LayerData, &LayerData)> =
            study.data.layers.iter().zip(&pair.other.data.layers).collect();
        let estimates = |table: &RatioTable| -> Vec<Vec<Option<Estimate>>> {
            study.scopes().iter().map(|scope| table.shares(scope)).collect()
        };
        let of_layer = |(a, b): &(&LayerData, &LayerData)| {
            let table = sums(study, a, b, spans);
            (estimates(&table), table)
        };
        let (mut layers, tables): (Vec<_>, Vec<_>) =
            parallel::map(&layers, of_layer).into_iter().unzip();
        let mut whole = RatioTable::new(study.groups.len(), COLUMNS);
        for table in &tables {
            whole.add_all(table);
        }
        layers.push(estimates(&whole));
        Self { layers }
    }
}

/// Sums over the tokens of one layer, by group and phase.
fn sums(study: &Study<'_>, a: &LayerData, b: &LayerData, spans: &[Span]) -> RatioTable {
    let mut table = RatioTable::new(study.groups.len(), COLUMNS);
    for span in spans {
        let group = study.groups.of_sequence(span.sequence);
        for at in 0..span.tokens {
            let (x, y) = (a.experts_of(span.base + at), b.experts_of(span.other + at));
            if x.first() == Some(&NO_EXPERT) || y.first() == Some(&NO_EXPERT) {
                continue;
            }
            // Empty places count as shared: both sets end there.
            let shared = x.iter().filter(|expert| y.contains(expert)).count();
            let phase = study.data.tokens.phase[span.base + at];
            let values: [f64; COLUMNS] = [
                shared as f64 / x.len() as f64,
                f64::from(u8::from(shared == x.len())),
                f64::from(u8::from(x.first() != y.first())),
            ];
            for (sums, value) in table.cell(group, phase).iter_mut().zip(values) {
                sums[0] += value;
                sums[1] += 1.0;
            }
        }
    }
    table
}

/// Rows of one of the three in every scope: by layer, then the mean over layers. `chance` of a layer.
pub(super) fn rows(
    pair: &Pair<'_>,
    metric: &ComparisonMetric,
    column: usize,
    chance: impl Fn(&LayerData) -> f64,
) -> Result<Vec<MetricRow>, Refusal> {
    let layers = &pair.base.data.layers;
    let mean = layers.iter().map(&chance).sum::<f64>() / layers.len() as f64;
    let places =
        layers.iter().map(|layer| (Some(layer.layer), chance(layer))).chain([(None, mean)]);
    let places: Vec<_> = places.zip(&pair.agreement()?.layers).collect();
    let mut rows = Vec::new();
    for (at, scope) in pair.base.scopes().iter().enumerate() {
        let row = pair.row(metric, scope);
        rows.extend(places.iter().filter_map(|((layer, chance), estimates)| {
            let (value, interval) = estimates[at][column]?;
            Some(MetricRow { layer: *layer, value, interval, chance: Some(*chance), ..row.clone() })
        }));
    }
    Ok(rows)
}
