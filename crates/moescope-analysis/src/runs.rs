//! Stretches of one phase within a sequence.

use std::ops::Range;

use moescope_trace::Phase;

use crate::data::{RunData, Sequence};

/// The tokens of a sequence as stretches of one phase each: normally its prompt and what was generated.
pub(crate) fn phase_runs(
    data: &RunData,
    sequence: &Sequence,
) -> impl Iterator<Item = (Phase, Range<usize>)> {
    let phases = &data.tokens.phase[sequence.start..sequence.end];
    let mut start = sequence.start;
    phases.chunk_by(|a, b| a == b).map(move |chunk| {
        let run = start..start + chunk.len();
        start = run.end;
        (chunk[0], run)
    })
}
