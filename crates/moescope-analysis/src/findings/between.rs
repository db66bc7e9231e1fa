//! Findings about how runs differ.

use super::speed::{device, throughput};
use super::words::{interval, interval_sentence, list, number, percent, rate, thousands, times};
use super::{Basis, Finding, apart, effect, stands_out, strongest};
use crate::analysis::Analysis;
use crate::compare::{Comparison, TokenWise, machine_differences};
use crate::row::{Index, MetricRow};

use moescope_trace::manifest::Weights;

/// Of each kind, the comparisons that show most; with twenty runs the rest is for the table.
const MOST: usize = 3;

pub(super) fn findings(analyses: &[Analysis], comparisons: &[Comparison]) -> Vec<Finding> {
    [speed, overlap, moved]
        .into_iter()
        .flat_map(|finding| {
            let mut found: Vec<Finding> = comparisons
                .iter()
                .filter_map(|comparison| {
                    let base = analyses.get(comparison.base)?;
                    finding(comparison, base, analyses.get(comparison.other)?)
                })
                .collect();
            found.sort_by(|a, b| b.effect.total_cmp(&a.effect));
            found.truncate(MOST);
            found
        })
        .collect()
}

/// Whether the routing of both runs means something.
fn trained(base: &Analysis, other: &Analysis) -> bool {
    [base, other].iter().all(|run| run.manifest.model.weights == Weights::Trained)
}

/// Speed of a run against the base, in the phase where it differs most.
fn speed(comparison: &Comparison, base: &Analysis, other: &Analysis) -> Option<Finding> {
    let phases = ["prefill", "decode"].into_iter().filter_map(|phase| {
        let (before, after) = (throughput(base, phase)?, throughput(other, phase)?);
        Some((effect(after.value, before.value), (phase, before, after)))
    });
    let phases: Vec<_> = phases.collect();
    let differences = machine_differences(&base.manifest, &other.manifest);
    if !differences.is_empty() {
        let (size, (phase, before, after)) = strongest(phases.into_iter())?;
        return Some(Finding {
            headline: format!(
                "{} runs at {} in {} and at {} in {}, on different {}",
                capital(phase),
                rate(before.value),
                base.labelled_name(),
                rate(after.value),
                other.labelled_name(),
                list(&differences.iter().map(|what| (*what).to_owned()).collect::<Vec<_>>())
            ),
            detail: format!(
                "{}: {}{}. {}: {}{}. The difference is that of the machines as much as of the runs.",
                base.name,
                device(base),
                interval(before.interval, rate),
                other.name,
                device(other),
                interval(after.interval, rate)
            ),
            figure: Some("throughput"),
            run: Some(comparison.other),
            layer: None,
            effect: size,
            caveat: false,
        });
    }
    let found = phases.into_iter().filter(|(_, (_, before, after))| apart(before, after));
    let (size, (phase, before, after)) = strongest(found)?;
    let (faster, slower, ratio) = if after.value > before.value {
        (other, base, after.value / before.value)
    } else {
        (base, other, before.value / after.value)
    };
    Some(Finding {
        headline: format!(
            "{} is {} as fast in {} as in {}: {} against {}",
            capital(phase),
            times_precise(ratio),
            faster.labelled_name(),
            slower.labelled_name(),
            rate(before.value.max(after.value)),
            rate(before.value.min(after.value))
        ),
        detail: format!(
            "On the same device and driver, {}. {}{}; {}{}.",
            device(base),
            base.name,
            interval(before.interval, rate),
            other.name,
            interval(after.interval, rate)
        ),
        figure: Some("throughput"),
        run: Some(comparison.other),
        layer: None,
        effect: size,
        caveat: false,
    })
}

/// As [`times`], with the digits that a small difference needs.
fn times_precise(ratio: f64) -> String {
    if ratio < 2.0 { format!("{ratio:.2} times") } else { times(ratio) }
}

fn capital(phase: &str) -> String {
    let mut letters = phase.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// How many of the choices of experts are the same.
fn overlap(comparison: &Comparison, base: &Analysis, other: &Analysis) -> Option<Finding> {
    let TokenWise::Compared { tokens, left_out } = comparison.token_wise else {
        return None;
    };
    let row = comparison.overall("routing_overlap").filter(|_| trained(base, other))?;
    let chance = row.chance?;
    let (names, value) =
        (format!("{} and {}", base.labelled_name(), other.labelled_name()), row.value);
    let rest = if left_out == 0 {
        String::new()
    } else {
        format!(
            " Left out are {} tokens that are in one run only or follow a different token.",
            thousands(left_out as u64)
        )
    };
    // With k = E there is no choice to agree on.
    if chance >= 1.0 {
        return None;
    }
    if value >= 1.0 {
        return Some(Finding {
            headline: format!(
                "{names} chose the same experts for every one of {} tokens",
                thousands(tokens as u64)
            ),
            detail: format!("By chance {} would be the same.{rest}", percent(chance)),
            figure: Some("overlap"),
            run: Some(comparison.other),
            layer: None,
            effect: effect(value, chance),
            caveat: false,
        });
    }
    let least = comparison
        .by_layer("routing_overlap")
        .min_by(|a, b| a.1.value.total_cmp(&b.1.value))
        .map(|(layer, row)| {
            format!(
                " Layer {layer} moved most: {}{} is the same there.",
                precise(row.value),
                interval(row.interval, precise)
            )
        });
    let same = comparison.overall("same_experts").map(|row| {
        format!(" All experts are the same for {} of tokens and layers.", precise(row.value))
    });
    Some(Finding {
        headline: format!(
            "{} of the experts chosen are the same in {names}; {} would be by chance",
            precise(value),
            percent(chance)
        ),
        detail: format!(
            "Over {} tokens that both read after the same tokens.{}{}{}{rest}",
            thousands(tokens as u64),
            interval_sentence(row.interval, precise),
            least.unwrap_or_default(),
            same.unwrap_or_default()
        ),
        figure: Some("overlap"),
        run: Some(comparison.other),
        layer: None,
        effect: effect(value, chance),
        caveat: false,
    })
}

/// A share near 1, with the digits that tell it from 1.
fn precise(share: f64) -> String {
    if share > 0.9 && share < 1.0 {
        // Rounded down: 99.996 % is not all.
        format!("{} %", (share * 10_000.0).floor() / 100.0)
    } else {
        percent(share)
    }
}

/// The expert whose use differs most.
fn moved(comparison: &Comparison, base: &Analysis, other: &Analysis) -> Option<Finding> {
    /// Difference in even shares below which nobody would look.
    const NOTABLE: f64 = 0.1;
    let rows: Vec<&MetricRow> =
        comparison.rows.iter().filter(|row| row.metric == "utilisation_difference").collect();
    if !trained(base, other) {
        return None;
    }
    let among = rows.len();
    let sequences = base.sequences.min(other.sequences);
    let basis = Basis { sequences, least_error: 0.0, among };
    let found = rows
        .into_iter()
        .filter(|row| row.value.abs() >= NOTABLE && stands_out(row, 0.0, basis))
        .map(|row| (row.value.abs(), row));
    let (_, row) = strongest(found)?;
    let (layer, Index::Expert(expert)) = (row.layer?, row.index?) else {
        return None;
    };
    let of =
        |run: &Analysis| Some(run.row("utilisation", Some(layer), row.index, None, None)?.value);
    let (before, after) = (of(base)?, of(other)?);
    Some(Finding {
        headline: format!(
            "Expert {expert} of layer {layer} is used {} an even share in {} and {} in {}",
            times(before),
            base.labelled_name(),
            times(after),
            other.labelled_name()
        ),
        detail: format!(
            "A difference of {}{} in even shares, the largest of {} experts.",
            number(row.value),
            interval(row.interval, number),
            thousands(among as u64)
        ),
        figure: Some("utilisation-difference"),
        run: Some(comparison.other),
        layer: Some(layer),
        // An expert that one run never uses is held against a tenth of an even share.
        effect: effect(after.max(NOTABLE), before.max(NOTABLE)),
        caveat: false,
    })
}
