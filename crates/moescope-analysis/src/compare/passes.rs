//! Forward passes of a run by the sequence they are for.

use std::collections::HashMap;

use moescope_trace::Phase;

use crate::data::RunData;

/// Passes of one sequence in one phase.
#[derive(Clone, Copy, Default)]
pub(super) struct Passes {
    /// Tokens they read.
    pub(super) tokens: u64,
    /// How long they took.
    pub(super) nanoseconds: f64,
    /// Highest values seen: bytes in use, reserved, resident.
    pub(super) memory: [u64; 3],
}

/// Passes by sequence and whether they decode. A pass of several sequences counts for the first.
pub(super) fn passes(data: &RunData) -> HashMap<(u32, bool), Passes> {
    let mut sequence_of = HashMap::new();
    for sequence in &data.sequences {
        for &step in &data.tokens.step[sequence.start..sequence.end] {
            sequence_of.entry(step).or_insert(sequence.id);
        }
    }
    let steps = &data.steps;
    let mut found: HashMap<(u32, bool), Passes> = HashMap::new();
    for at in 0..steps.rows() {
        let Some(&sequence) = sequence_of.get(&steps.step[at]) else {
            continue;
        };
        let passes = found.entry((sequence, steps.phase[at] == Phase::Decode)).or_default();
        passes.tokens += u64::from(steps.tokens[at]);
        passes.nanoseconds += steps.duration_ns[at] as f64;
        let memory = [steps.bytes_in_use[at], steps.bytes_reserved[at], steps.rss_bytes[at]];
        for (peak, bytes) in passes.memory.iter_mut().zip(memory) {
            *peak = (*peak).max(bytes.unwrap_or(0));
        }
    }
    found
}
