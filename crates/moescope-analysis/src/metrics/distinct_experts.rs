//! How many different experts a forward pass really touches.

use moescope_trace::Phase;

use crate::metric::{Group, Metric, Need};
use crate::row::MetricRow;
use crate::study::{Scope, Study};

/// Rows: layer x phase (always named: a prefill pass is a whole prompt, a decode pass one token per
/// sequence). A pass counts for the sequence of its first token. Interval: bootstrap over sequences.
pub(crate) const DISTINCT_EXPERTS: Metric = Metric {
    name: "distinct_experts",
    title: "Distinct experts per forward pass",
    group: Group::Speed,
    unit: "experts",
    formula: "mean over the passes of a phase of the number of distinct experts that the pass selects",
    chance: "mean over the same passes of E (1 - (1 - k/E)^B), B the tokens of the pass",
    source: "What a pass has to read of the layer's experts; it bounds the speed of decoding in batches",
    needs: &[Need::Ids, Need::Passes],
    compute,
};

fn compute(study: &Study<'_>) -> Vec<MetricRow> {
    let mut rows = Vec::new();
    for (layer, table) in study.data.layers.iter().zip(&study.passes().tables) {
        for phase in [Phase::Prefill, Phase::Decode] {
            let scope = Scope { phase: Some(phase), ..study.overall().clone() };
            let ratios = table.ratios(&scope, (1.0, layer.experts as f64));
            if let [Some((value, interval)), Some((chance, _))] = ratios[..] {
                rows.push(MetricRow {
                    layer: Some(layer.layer),
                    value,
                    interval,
                    chance: Some(chance),
                    ..study.row(DISTINCT_EXPERTS.name, DISTINCT_EXPERTS.unit, &scope)
                });
            }
        }
    }
    rows
}
