//! How long someone waits for each further token, on average.

use super::shared::percentiles;
use super::shared::serving;
use crate::metric::{Group, Metric, Need};
use moescope_trace::Phase;

/// Rows: phase (decode) x percentile (50, 95, 99) over sequences. Interval: bootstrap over sequences.
pub(crate) const TPOT: Metric = Metric {
    name: "tpot",
    title: "Time per output token",
    group: Group::Speed,
    unit: "ns",
    formula: "(end-to-end time - TTFT) / (output tokens - 1): mean duration of the decode passes that hold a \
              token of the sequence",
    chance: "",
    source: "TPOT as serving benchmarks define it; the first output token comes from the prefill, each \
             decode pass brings one more",
    needs: &[Need::Ids, Need::Times],
    compute: |study| {
        let times = serving::per_sequence(study, Phase::Decode);
        let means = times.into_iter().map(|(sum, passes, group)| (sum / passes, group)).collect();
        percentiles::rows(study, &TPOT, Phase::Decode, means)
    },
};
