//! Tables of first choices in two neighbouring MoE layers.

use crate::data::LayerData;
use crate::study::Study;
use crate::transitions::LayerTransitions;

/// The two layers.
pub(crate) fn layers<'a>(
    study: &Study<'a>,
    transitions: &LayerTransitions,
) -> (&'a LayerData, &'a LayerData) {
    (&study.data.layers[transitions.place], &study.data.layers[transitions.place + 1])
}

/// Row and column sums of counts `[E, E']`.
pub(crate) fn margins(counts: &[u32], columns: usize) -> (Vec<f64>, Vec<f64>) {
    let mut down = vec![0.0; columns];
    let across = counts
        .chunks_exact(columns.max(1))
        .map(|row| {
            for (sum, &count) in down.iter_mut().zip(row) {
                *sum += f64::from(count);
            }
            row.iter().map(|&count| f64::from(count)).sum()
        })
        .collect();
    (across, down)
}
