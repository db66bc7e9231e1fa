//! How long someone waits for the first token.

use super::shared::percentiles;
use super::shared::serving;
use crate::metric::{Group, Metric, Need};
use moescope_trace::Phase;

/// Rows: phase (prefill) x percentile (50, 95, 99) over sequences. Interval: bootstrap over sequences.
pub(crate) const TTFT: Metric = Metric {
    name: "ttft",
    title: "Time to the first token",
    group: Group::Speed,
    unit: "ns",
    formula: "sum of the durations of the prefill passes that hold tokens of the sequence",
    chance: "",
    source: "TTFT as serving benchmarks define it, from request start to first token, without waiting, \
             tokenisation and sampling, which a run does not record",
    needs: &[Need::Ids, Need::Times],
    compute: |study| {
        let times = serving::per_sequence(study, Phase::Prefill);
        let sums = times.into_iter().map(|(sum, _, group)| (sum, group)).collect();
        percentiles::rows(study, &TTFT, Phase::Prefill, sums)
    },
};
