//! The gaps between tokens.

use super::shared::percentiles;
use super::shared::serving;
use crate::metric::{Group, Metric, Need};
use moescope_trace::Phase;

/// Rows: phase (decode) x percentile (50, 95, 99) over tokens. Interval: bootstrap over sequences.
pub(crate) const ITL: Metric = Metric {
    name: "itl",
    title: "Inter-token latency",
    group: Group::Speed,
    unit: "ns",
    formula: "the gap before each generated token but the first: duration of the decode pass that brings it, \
              once for every sequence in the pass",
    chance: "",
    source: "ITL as serving benchmarks define it: the raw gaps, not their means per request",
    needs: &[Need::Ids, Need::Times],
    compute: |study| {
        let durations = serving::durations(study, Phase::Decode);
        let mut gaps = Vec::new();
        for (index, sequence) in study.data.sequences.iter().enumerate() {
            let group = study.groups.of_sequence(index);
            let steps = &study.data.tokens.step[sequence.start..sequence.end];
            gaps.extend(steps.iter().filter_map(|step| Some((*durations.get(step)?, Some(group)))));
        }
        percentiles::rows(study, &ITL, Phase::Decode, gaps)
    },
};
