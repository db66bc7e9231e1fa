//! Whose forward passes they are.

use std::collections::HashMap;

use crate::data::RunData;
use crate::study::Study;

/// The group of each forward pass: that of a sequence in it. Passes of several sequences (batches)
/// count for the first one.
pub(crate) fn step_groups(study: &Study<'_>) -> Vec<Option<usize>> {
    let data: &RunData = study.data;
    let mut group_of_step: HashMap<u32, usize> = HashMap::new();
    for (index, sequence) in data.sequences.iter().enumerate() {
        let group = study.groups.of_sequence(index);
        let mut last = None;
        for &step in &data.tokens.step[sequence.start..sequence.end] {
            // A prefill is thousands of tokens of one step.
            if last != Some(step) {
                group_of_step.entry(step).or_insert(group);
                last = Some(step);
            }
        }
    }
    data.steps.step.iter().map(|step| group_of_step.get(step).copied()).collect()
}
