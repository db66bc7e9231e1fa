//! Many tests at once.

/// p-values adjusted by Benjamini and Hochberg ("Controlling the false discovery rate", 1995), in the
/// order given: calling those below q discoveries keeps the expected share of false ones at q. Agrees
/// with `scipy.stats.false_discovery_control`.
pub fn adjust(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_unstable_by(|&a, &b| p[b].total_cmp(&p[a]));
    let mut adjusted = vec![1.0; p.len()];
    let mut least: f64 = 1.0;
    for (above, &at) in order.iter().enumerate() {
        let rank = p.len() - above;
        // A factor of at least 1, so that rounding takes no p below itself.
        least = least.min(p[at] * (p.len() as f64 / rank as f64));
        adjusted[at] = least;
    }
    adjusted
}
