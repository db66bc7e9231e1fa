//! How many different experts each forward pass needed.

use std::collections::HashMap;

use crate::data::{NO_EXPERT, RunData};

/// Distinct experts per MoE layer of each forward pass, mean over layers, in the order of
/// [`RunData::steps`]; NaN for a pass without routed tokens. Empty where no pass was recorded.
pub(crate) fn distinct_per_pass(data: &RunData) -> Vec<f32> {
    let passes = data.steps.rows();
    if passes == 0 || data.layers.is_empty() {
        return Vec::new();
    }
    let row_of: HashMap<u32, usize> =
        data.steps.step.iter().enumerate().map(|(row, &step)| (step, row)).collect();
    // Tokens grouped by pass; they mostly are already.
    let mut tokens: Vec<(usize, usize)> = data
        .tokens
        .step
        .iter()
        .enumerate()
        .filter_map(|(token, step)| Some((*row_of.get(step)?, token)))
        .collect();
    tokens.sort_by_key(|&(row, _)| row);
    let mut sums = vec![0u32; passes];
    for layer in &data.layers {
        let mut seen_in = vec![usize::MAX; layer.experts];
        for &(row, token) in &tokens {
            for &expert in layer.experts_of(token).iter().filter(|&&expert| expert != NO_EXPERT) {
                let seen = &mut seen_in[usize::from(expert)];
                sums[row] += u32::from(*seen != row);
                *seen = row;
            }
        }
    }
    let mean = |&sum: &u32| if sum == 0 { f32::NAN } else { sum as f32 / data.layers.len() as f32 };
    sums.iter().map(mean).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use moescope_trace::Phase;

    use super::*;
    use crate::data::LayerData;

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
        let distinct = distinct_per_pass(&data);
        // {0,1,2} and {3,4}; {5,6} and {0}.
        assert_eq!(distinct[..2], [2.5, 1.5]);
        assert!(distinct[2].is_nan());
    }
}
