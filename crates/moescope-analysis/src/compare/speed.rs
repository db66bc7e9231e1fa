//! Speed and memory of a run as ratios to those of a base.

use std::collections::{BTreeSet, HashMap};

use moescope_trace::fingerprint::Aspect;
use moescope_trace::manifest::Manifest;
use moescope_trace::{Fingerprint, Phase};

use super::Refusal;
use crate::data::RunData;
use crate::metric::Need;
use crate::row::MetricRow;
use crate::stats::{Ratio, ratio_of, ratio_of_pairs};
use crate::study::Study;

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

/// Passes of one sequence in one phase.
#[derive(Clone, Copy, Default)]
struct Passes {
    tokens: u64,
    nanoseconds: f64,
    /// Highest values seen: in use, reserved, resident.
    memory: [u64; 3],
}

/// Rows of `speed_ratio` (by phase: tokens per second of the other run over those of the base).
///
/// The sample is the time per token of each sequence; the ratio is the Hodges-Lehmann estimate of
/// [`crate::stats`], of pairs where both runs have the same sequences.
pub(super) fn speed(
    base: &Study<'_>,
    other: &RunData,
    across_machines: bool,
) -> Result<Vec<MetricRow>, Refusal> {
    let differences = machine_differences(&base.data.manifest, &other.manifest);
    if !base.data.has(Need::Times) || !other.has(Need::Times) {
        return Err(Refusal::NoTimes);
    }
    if !differences.is_empty() && !across_machines {
        return Err(Refusal::Machines(differences));
    }
    let passes = [passes(base.data), passes(other)];
    let rows = [Phase::Prefill, Phase::Decode].into_iter().filter_map(|phase| {
        let seconds_per_token = |passes: &Passes| {
            (passes.tokens > 0).then(|| passes.nanoseconds / passes.tokens as f64)
        };
        // A ratio of speeds is that of times turned around.
        let [new, old] = [&passes[1], &passes[0]];
        row(base, "speed_ratio", Some(phase), ratio(new, old, phase, seconds_per_token)?)
    });
    Ok(rows.collect())
}

/// Rows of `bytes_in_use_ratio`, `bytes_reserved_ratio` and `rss_ratio`, the other run over the base:
/// peaks of each sequence, where both recorded them.
pub(super) fn memory(base: &Study<'_>, other: &RunData) -> Vec<MetricRow> {
    let passes = [whole(passes(base.data)), whole(passes(other))];
    let kinds = ["bytes_in_use_ratio", "bytes_reserved_ratio", "rss_ratio"];
    let of_kind = |(kind, metric)| {
        let peak = |passes: &Passes| Some(passes.memory[kind] as f64).filter(|bytes| *bytes > 0.0);
        row(base, metric, None, ratio(&passes[0], &passes[1], Phase::Prefill, peak)?)
    };
    kinds.into_iter().enumerate().filter_map(of_kind).collect()
}

/// Peaks of whole sequences, filed under the prefill: in either phase there may be the larger one.
fn whole(passes: HashMap<(u32, bool), Passes>) -> HashMap<(u32, bool), Passes> {
    let mut found: HashMap<(u32, bool), Passes> = HashMap::new();
    for ((sequence, _), passes) in passes {
        let to = found.entry((sequence, false)).or_default();
        for (peak, bytes) in to.memory.iter_mut().zip(passes.memory) {
            *peak = (*peak).max(bytes);
        }
    }
    found
}

fn row(
    study: &Study<'_>,
    metric: &'static str,
    phase: Option<Phase>,
    ratio: Ratio,
) -> Option<MetricRow> {
    let row = study.row(metric, "ratio", study.overall());
    let phase = phase.map(Phase::as_str);
    let (value, interval) = (ratio.value, ratio.interval);
    value.is_finite().then_some(MetricRow { phase, value, interval, chance: Some(1.0), ..row })
}

/// How much larger a value of the sequences of `new` is than of those of `base`.
fn ratio(
    base: &HashMap<(u32, bool), Passes>,
    new: &HashMap<(u32, bool), Passes>,
    phase: Phase,
    value: impl Fn(&Passes) -> Option<f64>,
) -> Option<Ratio> {
    let of = |passes: &HashMap<(u32, bool), Passes>| {
        let decode = phase == Phase::Decode;
        let mut found: Vec<(u32, f64)> = passes
            .iter()
            .filter(|((_, of_decode), _)| *of_decode == decode)
            .filter_map(|((sequence, _), passes)| Some((*sequence, value(passes)?)))
            .collect();
        found.sort_unstable_by_key(|(sequence, _)| *sequence);
        found
    };
    let (base, new) = (of(base), of(new));
    let same =
        base.len() == new.len() && std::iter::zip(&base, &new).all(|((a, _), (b, _))| a == b);
    if same {
        let pairs = std::iter::zip(base, new).map(|((_, a), (_, b))| (a, b));
        return ratio_of_pairs(&pairs.collect::<Vec<_>>());
    }
    let values = |found: Vec<(u32, f64)>| found.into_iter().map(|(_, value)| value).collect();
    let (base, new): (Vec<f64>, Vec<f64>) = (values(base), values(new));
    ratio_of(&base, &new)
}

/// Passes by sequence and whether they decode. A pass of several sequences counts for the first.
fn passes(data: &RunData) -> HashMap<(u32, bool), Passes> {
    let mut sequence_of = HashMap::new();
    for sequence in &data.sequences {
        for &step in &data.tokens.step[sequence.start..sequence.end] {
            sequence_of.entry(step).or_insert(sequence.id);
        }
    }
    let steps = &data.steps;
    let mut found: HashMap<(u32, bool), Passes> = HashMap::new();
    for at in 0..steps.rows() {
        let Some(&sequence) = sequence_of.get(&steps.step[at]) else {
            continue;
        };
        let passes = found.entry((sequence, steps.phase[at] == Phase::Decode)).or_default();
        passes.tokens += u64::from(steps.tokens[at]);
        passes.nanoseconds += steps.duration_ns[at] as f64;
        let memory = [steps.bytes_in_use[at], steps.bytes_reserved[at], steps.rss_bytes[at]];
        for (peak, bytes) in passes.memory.iter_mut().zip(memory) {
            *peak = (*peak).max(bytes.unwrap_or(0));
        }
    }
    found
}
