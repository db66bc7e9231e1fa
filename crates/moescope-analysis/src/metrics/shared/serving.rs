//! Times of the forward passes as the sequences in them see them.

use std::collections::HashMap;

use moescope_trace::Phase;

use crate::study::Study;

/// Durations of the passes of a phase by step.
pub(crate) fn durations(study: &Study<'_>, phase: Phase) -> HashMap<u32, u64> {
    let steps = &study.data.steps;
    (0..steps.rows())
        .filter(|&row| steps.phase[row] == phase)
        .map(|row| (steps.step[row], steps.duration_ns[row]))
        .collect()
}

/// Of each sequence with passes of a phase: their durations together, how many they are, its group.
pub(crate) fn per_sequence(study: &Study<'_>, phase: Phase) -> Vec<(u64, u64, Option<usize>)> {
    let durations = durations(study, phase);
    let mut times = Vec::new();
    for (index, sequence) in study.data.sequences.iter().enumerate() {
        let steps = &study.data.tokens.step[sequence.start..sequence.end];
        let (mut sum, mut passes) = (0, 0);
        // Tokens of one pass are next to each other in a sequence.
        for step in steps.chunk_by(|a, b| a == b) {
            if let Some(duration) = durations.get(&step[0]) {
                sum = duration.saturating_add(sum);
                passes += 1;
            }
        }
        if passes > 0 {
            times.push((sum, passes, Some(study.groups.of_sequence(index))));
        }
    }
    times
}
