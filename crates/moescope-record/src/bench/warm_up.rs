//! When a row is warm.

use std::time::Duration;

/// When a row is warm: its last [`least`](WarmUp::least) passes lie within a tolerance of each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmUp {
    /// Passes at least, and those that are compared.
    pub least: u32,
    /// Passes at most.
    pub most: u32,
    /// Share by which the slowest of them may be slower than the fastest.
    pub tolerance: f64,
    /// Time after which a row counts as warm once it has had one pass.
    pub limit: Duration,
}

impl Default for WarmUp {
    fn default() -> Self {
        WarmUp { least: 3, most: 10, tolerance: 0.05, limit: Duration::from_secs(20) }
    }
}

impl WarmUp {
    pub(super) fn is_done(&self, times: &[u64], elapsed: Duration) -> bool {
        let stable = times.len() >= self.least as usize && self.is_stable(times);
        stable || times.len() >= self.most as usize || (!times.is_empty() && elapsed >= self.limit)
    }

    pub(super) fn is_stable(&self, times: &[u64]) -> bool {
        let last = &times[times.len().saturating_sub(self.least as usize)..];
        let (Some(&low), Some(&high)) = (last.iter().min(), last.iter().max()) else { return true };
        high as f64 <= low as f64 * (1.0 + self.tolerance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_is_stable_or_long_enough() {
        let rule = WarmUp { least: 3, most: 5, tolerance: 0.05, limit: Duration::from_secs(1) };
        let soon = Duration::ZERO;
        assert!(!rule.is_done(&[], Duration::from_secs(9)), "one pass at least");
        assert!(!rule.is_done(&[100, 100], soon));
        assert!(rule.is_done(&[100, 104, 102], soon));
        assert!(!rule.is_done(&[200, 104, 102], soon));
        assert!(rule.is_done(&[200, 104, 102, 100], soon));
        assert!(
            rule.is_done(&[500, 400, 300, 200, 100], soon) && !rule.is_stable(&[300, 200, 100])
        );
        assert!(rule.is_done(&[200], Duration::from_secs(1)));
    }
}
