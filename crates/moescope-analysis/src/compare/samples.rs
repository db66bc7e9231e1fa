//! Ratios between samples of two runs, a value for each sequence.

use moescope_trace::Phase;

use super::ComparisonMetric;
use super::pair::Pair;
use crate::row::MetricRow;
use crate::stats::{ratio_of, ratio_of_pairs};

/// A row of how much larger the values of `new` are than those of `base`, each by sequence: the
/// Hodges-Lehmann estimate of [`crate::stats`], of pairs where both have the same sequences. `None` where
/// there is nothing to compare.
pub(super) fn ratio_row(
    pair: &Pair<'_>,
    metric: &ComparisonMetric,
    phase: Option<Phase>,
    [mut base, mut new]: [Vec<(u32, f64)>; 2],
) -> Option<MetricRow> {
    for samples in [&mut base, &mut new] {
        samples.sort_unstable_by_key(|(sequence, _)| *sequence);
    }
    let same =
        base.len() == new.len() && std::iter::zip(&base, &new).all(|((a, _), (b, _))| a == b);
    let values = |samples: &[(u32, f64)]| samples.iter().map(|sample| sample.1).collect::<Vec<_>>();
    let (base, new) = (values(&base), values(&new));
    let ratio = match same {
        true => ratio_of_pairs(&std::iter::zip(base, new).collect::<Vec<_>>()),
        false => ratio_of(&base, &new),
    }?;
    let row = MetricRow {
        phase: phase.map(Phase::as_str),
        value: ratio.value,
        interval: ratio.interval,
        chance: Some(1.0),
        ..pair.row(metric, pair.base.overall())
    };
    row.value.is_finite().then_some(row)
}
