//! How many different experts each forward pass needed.

use std::collections::HashMap;
use std::ops::Range;

use crate::chance::expected_distinct;
use crate::data::{LayerData, RunData};
use crate::parallel;
use crate::ratio::RatioTable;
use crate::study::Study;

/// Distinct experts of the forward passes of a run.
pub(crate) struct Passes {
    /// By layer: distinct experts, and how many there would be by chance, over passes.
    pub(crate) tables: Vec<RatioTable>,
    /// Distinct experts per MoE layer of each forward pass, mean over layers, in the order of
    /// [`RunData::steps`]; NaN for a pass without routed tokens.
    pub(crate) distinct: Vec<f32>,
}

impl Passes {
    pub(crate) fn new(study: &Study<'_>) -> Self {
        let tokens = PassTokens::new(study.data);
        let counted = parallel::map(&study.data.layers, |layer| of_layer(study, layer, &tokens));
        let mut sums = vec![0u32; tokens.ranges.len()];
        let mut tables = Vec::with_capacity(counted.len());
        for (table, distinct) in counted {
            tables.push(table);
            for (sum, distinct) in sums.iter_mut().zip(distinct) {
                *sum += u32::from(distinct);
            }
        }
        let (data, layers) = (study.data, study.data.layers.len() as f32);
        let sum_of: HashMap<u32, u32> = tokens.steps(data).zip(sums).collect();
        let mean = |step: &u32| match sum_of.get(step) {
            None | Some(0) => f32::NAN,
            Some(&sum) => sum as f32 / layers,
        };
        Self { tables, distinct: data.steps.step.iter().map(mean).collect() }
    }
}

/// The table of one layer, and distinct experts by pass.
fn of_layer(study: &Study<'_>, layer: &LayerData, passes: &PassTokens) -> (RatioTable, Vec<u16>) {
    let mut table = RatioTable::new(study.groups.len(), 2);
    let mut seen_in = vec![u32::MAX; layer.experts];
    let mut by_pass = Vec::with_capacity(passes.ranges.len());
    for (number, pass) in (0u32..).zip(&passes.ranges) {
        let tokens = &passes.tokens[pass.clone()];
        let (mut distinct, mut routed) = (0u16, 0u32);
        for &(token, _) in tokens {
            let experts = layer.selected(token as usize);
            routed += u32::from(!experts.is_empty());
            for &expert in experts {
                let seen = &mut seen_in[usize::from(expert)];
                distinct += u16::from(*seen != number);
                *seen = number;
            }
        }
        by_pass.push(distinct);
        if let (Some(&(first, sequence)), 1..) = (tokens.first(), routed) {
            let group = study.groups.of_sequence(sequence as usize);
            let phase = study.data.tokens.phase[first as usize];
            let chance = expected_distinct(layer.experts, layer.top_k, f64::from(routed));
            table.add(group, phase, 0, f64::from(distinct), 1.0);
            table.add(group, phase, 1, chance, 1.0);
        }
    }
    (table, by_pass)
}

/// The tokens of each forward pass.
struct PassTokens {
    /// (token, index of its sequence), ordered by pass.
    tokens: Vec<(u32, u32)>,
    ranges: Vec<Range<usize>>,
}

impl PassTokens {
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

    /// The number of each pass in the run.
    fn steps<'d>(&'d self, data: &'d RunData) -> impl Iterator<Item = u32> + 'd {
        let of = |range: &Range<usize>| data.tokens.step[self.tokens[range.start].0 as usize];
        self.ranges.iter().map(of)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use moescope_trace::Phase;

    use super::*;
    use crate::data::NO_EXPERT;
    use crate::options::Options;

    #[test]
    fn experts_of_a_pass_count_once() {
        let a = LayerData::from_ids(0, 8, 2, vec![0, 1, 1, 2, 5, 6]);
        let b = LayerData::from_ids(2, 8, 2, vec![3, 4, 3, 4, 0, NO_EXPERT]);
        let mut data = RunData::from_ids("run", &[("x", 2), ("y", 1)], vec![a, b]).unwrap();
        let steps = &mut data.steps;
        // A third pass has no tokens.
        steps.step = vec![0, 1, 2];
        steps.phase = vec![Phase::Prefill; 3];
        (steps.batch, steps.tokens, steps.context) = (vec![1; 3], vec![2, 1, 1], vec![0; 3]);
        (steps.duration_ns, steps.device_ns) = (vec![1; 3], vec![None; 3]);
        (steps.bytes_in_use, steps.bytes_reserved) = (vec![None; 3], vec![None; 3]);
        steps.rss_bytes = vec![None; 3];
        data.check().unwrap();
        let options = Options::default();
        let distinct = Passes::new(&Study::new(&data, &options)).distinct;
        // {0,1,2} and {3,4}; {5,6} and {0}.
        assert_eq!(distinct[..2], [2.5, 1.5]);
        assert!(distinct[2].is_nan());
    }
}
