//! How many different experts a forward pass really touches.

use std::ops::Range;

use moescope_trace::Phase;

use crate::chance::expected_distinct;
use crate::data::{LayerData, RunData};
use crate::metric::{Metric, Need};
use crate::parallel;
use crate::ratio::RatioTable;
use crate::row::MetricRow;
use crate::study::{Scope, Study};

/// Rows: layer x phase (always named: a prefill pass is a whole prompt, a decode pass one token per
/// sequence). A pass counts for the sequence of its first token. Interval: bootstrap over sequences.
pub(crate) const DISTINCT_EXPERTS: Metric = Metric {
    name: "distinct_experts",
    title: "Distinct experts per forward pass",
    unit: "experts",
    formula: "mean over the passes of a phase of the number of distinct experts that the pass selects",
    chance: "mean over the same passes of E (1 - (1 - k/E)^B), B the tokens of the pass",
    source: "What a pass has to read of the layer's experts; it bounds the speed of decoding in batches",
    needs: &[Need::Ids, Need::Passes],
    compute,
};

fn compute(study: &Study<'_>) -> Vec<MetricRow> {
    let passes = Passes::new(study.data);
    parallel::map(&study.data.layers, |layer| of_layer(study, layer, &passes)).concat()
}

fn of_layer(study: &Study<'_>, layer: &LayerData, passes: &Passes) -> Vec<MetricRow> {
    // Distinct experts, and how many there would be by chance.
    let mut table = RatioTable::new(study.groups.len(), 2);
    let mut seen_in = vec![u32::MAX; layer.experts];
    for (number, pass) in (0u32..).zip(&passes.ranges) {
        let tokens = &passes.tokens[pass.clone()];
        let (mut distinct, mut routed) = (0u32, 0u32);
        for &(token, _) in tokens {
            let experts = layer.selected(token as usize);
            routed += u32::from(!experts.is_empty());
            for &expert in experts {
                let seen = &mut seen_in[usize::from(expert)];
                distinct += u32::from(*seen != number);
                *seen = number;
            }
        }
        if let (Some(&(first, sequence)), 1..) = (tokens.first(), routed) {
            let group = study.groups.of_sequence(sequence as usize);
            let phase = study.data.tokens.phase[first as usize];
            let chance = expected_distinct(layer.experts, layer.top_k, f64::from(routed));
            table.add(group, phase, 0, f64::from(distinct), 1.0);
            table.add(group, phase, 1, chance, 1.0);
        }
    }
    let mut rows = Vec::new();
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
    rows
}

/// The tokens of each forward pass.
struct Passes {
    /// (token, index of its sequence), ordered by pass.
    tokens: Vec<(u32, u32)>,
    ranges: Vec<Range<usize>>,
}

impl Passes {
    fn new(data: &RunData) -> Self {
        let steps = &data.tokens.step;
        let mut tokens = Vec::with_capacity(data.len());
        for (sequence, of) in (0u32..).zip(&data.sequences) {
            tokens.extend((of.start..of.end).map(|token| (token as u32, sequence)));
        }
        // Linear where sequences ran one after the other.
        tokens.sort_by_key(|&(token, _)| steps[token as usize]);
        let mut start = 0;
        let same = |a: &(u32, u32), b: &(u32, u32)| steps[a.0 as usize] == steps[b.0 as usize];
        let ranges = tokens
            .chunk_by(same)
            .map(|chunk| {
                let range = start..start + chunk.len();
                start = range.end;
                range
            })
            .collect();
        Self { tokens, ranges }
    }
}
