//! Speed of a run as a ratio to that of a base.

use std::collections::{BTreeSet, HashMap};

use moescope_trace::fingerprint::Aspect;
use moescope_trace::manifest::Manifest;
use moescope_trace::{Fingerprint, Phase};

use super::pair::Pair;
use super::passes::Passes;
use super::samples::ratio_row;
use super::{ComparisonMetric, Part, Refusal};
use crate::metric::Need;

/// Rows: phase (always named). Interval: bootstrap over sequences.
pub(super) const SPEED_RATIO: ComparisonMetric = ComparisonMetric {
    name: "speed_ratio",
    title: "Speed against the base",
    unit: "ratio",
    formula: "tokens per second of b over those of a, from the time per token of each sequence: Hodges-Lehmann \
              estimate of the ratio, of pairs where both runs have the same sequences",
    chance: "1 (equally fast)",
    source: "Hodges and Lehmann 1963, on the log scale: as robust as a median. Compared on one machine, or where \
             --across-devices asks for it",
    part: Part::Speed,
    token_wise: false,
    needs: &[Need::Times],
    of_each: Some("throughput"),
    compute: |pair| {
        same_machine(pair)?;
        let [base, new] = pair.passes();
        let of_phase = |phase: Phase| {
            let seconds_per_token = |passes: &HashMap<(u32, bool), Passes>| -> Vec<(u32, f64)> {
                passes
                    .iter()
                    .filter(|((_, decode), of)| {
                        *decode == (phase == Phase::Decode) && of.tokens > 0
                    })
                    .map(|((sequence, _), of)| (*sequence, of.nanoseconds / of.tokens as f64))
                    .collect()
            };
            // A ratio of speeds is that of times turned around.
            let samples = [seconds_per_token(new), seconds_per_token(base)];
            ratio_row(pair, &SPEED_RATIO, Some(phase), samples)
        };
        Ok([Phase::Prefill, Phase::Decode].into_iter().filter_map(of_phase).collect())
    },
};

/// Refuses to compare times of different machines, unless that is asked for.
pub(super) fn same_machine(pair: &Pair<'_>) -> Result<(), Refusal> {
    let [base, other] = [pair.base, pair.other].map(|study| &study.data.manifest);
    let differences = machine_differences(base, other);
    match differences.is_empty() || pair.across_machines {
        true => Ok(()),
        false => Err(Refusal::Machines(differences)),
    }
}

/// In what two runs' machines differ (`devices`, `drivers`, `hosts`); empty if their speeds can be compared.
pub(crate) fn machine_differences(base: &Manifest, other: &Manifest) -> Vec<&'static str> {
    let differences = Fingerprint::of_run(base).differences(&Fingerprint::of_run(other));
    let of_machine = differences.iter().filter(|d| d.aspect == Aspect::Device);
    let kind = |field: &str| match field {
        "backend" | "device" | "vendor id" | "device id" => "devices",
        "driver" | "driver version" => "drivers",
        _ => "hosts",
    };
    let found: BTreeSet<&'static str> = of_machine.map(|d| kind(d.field)).collect();
    found.into_iter().collect()
}
