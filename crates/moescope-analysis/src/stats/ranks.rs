//! Midranks, and what ties take from a variance.

/// Ranks of values, from 1, tied values sharing the mean of their ranks; and the sum of t³ - t over
/// groups of t tied values, 0 where there is no tie.
pub(super) fn midranks(values: &[f64]) -> (Vec<f64>, f64) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let (mut start, mut ties) = (0, 0.0);
    while start < order.len() {
        let value = values[order[start]];
        let length = order[start..].iter().take_while(|&&at| values[at] == value).count();
        // A value that does not equal itself (NaN) is a group of its own.
        let length = length.max(1);
        let rank = start as f64 + (length as f64 + 1.0) / 2.0;
        order[start..start + length].iter().for_each(|&at| ranks[at] = rank);
        let t = length as f64;
        ties += t * t * t - t;
        start += length;
    }
    (ranks, ties)
}
