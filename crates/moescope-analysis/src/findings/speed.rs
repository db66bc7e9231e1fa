//! Findings about time and memory of single runs.

use super::words::{bytes, duration, interval, percent, rate, thousands, times};
use super::{Finding, effect, elsewhere, place, position, strongest};
use crate::analysis::Analysis;
use crate::row::{Index, MetricRow};
use crate::stats;

use moescope_trace::Phase;

pub(super) fn findings(analyses: &[Analysis]) -> Vec<Finding> {
    [prefill_and_decode, tail, memory, growth]
        .iter()
        .filter_map(|finding| finding(analyses))
        .collect()
}

/// The throughput of a phase.
pub(super) fn throughput<'a>(analysis: &'a Analysis, phase: &str) -> Option<&'a MetricRow> {
    analysis.row("throughput", None, None, None, Some(phase))
}

fn prefill_and_decode(analyses: &[Analysis]) -> Option<Finding> {
    let both = analyses.iter().filter_map(|analysis| {
        let (prefill, decode) = (throughput(analysis, "prefill")?, throughput(analysis, "decode")?);
        Some((effect(prefill.value, decode.value), (analysis, prefill, decode)))
    });
    let (_, (analysis, prefill, decode)) = strongest(both)?;
    let others = elsewhere(analyses, analysis, |other| {
        let (prefill, decode) = (throughput(other, "prefill")?, throughput(other, "decode")?);
        Some(format!("{} and {}", rate(prefill.value), rate(decode.value)))
    });
    Some(Finding {
        headline: format!(
            "Prompts are read at {} and text is generated at {}{}",
            rate(prefill.value),
            rate(decode.value),
            place(analyses, analysis)
        ),
        detail: format!(
            "Prefill{}, decode{}, on {}, without tokenisation and sampling.{others}",
            interval(prefill.interval, rate),
            interval(decode.interval, rate),
            device(analysis)
        ),
        figure: Some("throughput"),
        run: position(analyses, analysis),
        layer: None,
        // That a prompt is read faster than text is written is no effect.
        effect: 0.0,
        caveat: false,
    })
}

/// `wgpu, NVIDIA L4, driver 550.54`.
pub(super) fn device(analysis: &Analysis) -> String {
    let device = &analysis.manifest.device;
    let mut parts = vec![device.backend.clone(), device.adapter.clone()];
    if let Some(version) = device.driver_version.as_ref().or(device.driver.as_ref()) {
        parts.push(format!("driver {version}"));
    }
    parts.retain(|part| !part.is_empty());
    if parts.is_empty() { "an unknown device".to_owned() } else { parts.join(", ") }
}

/// The tail of the decode latency.
fn tail(analyses: &[Analysis]) -> Option<Finding> {
    /// Below, the 99th percentile is one of the two slowest passes.
    const FEWEST: usize = 200;
    /// A ratio that a user would notice.
    const NOTABLE: f64 = 1.3;
    let passes = |analysis: &Analysis| {
        analysis.steps.phase.iter().filter(|&&phase| phase == Phase::Decode).count()
    };
    let ratio = analyses.iter().filter_map(|analysis| {
        let at = |percent| {
            let index = Some(Index::Percentile(percent));
            analysis.row("step_latency", None, index, None, Some("decode"))
        };
        let (median, slow) = (at(50)?, at(99)?);
        // Where there are intervals, the tail must be outside that of the median.
        let apart = match (median.interval, slow.interval) {
            (Some(median), Some(slow)) => median.1 < slow.0,
            _ => true,
        };
        let found = passes(analysis) >= FEWEST && slow.value >= NOTABLE * median.value && apart;
        found.then(|| (effect(slow.value, median.value), (analysis, median, slow)))
    });
    let (size, (analysis, median, slow)) = strongest(ratio)?;
    Some(Finding {
        headline: format!(
            "One decode pass in a hundred takes {} or more, {} the median of {}{}",
            duration(slow.value),
            times(slow.value / median.value),
            duration(median.value),
            place(analyses, analysis)
        ),
        detail: format!(
            "99th percentile{} of {} decode passes.",
            interval(slow.interval, duration),
            thousands(passes(analysis) as u64)
        ),
        figure: Some("latency"),
        run: position(analyses, analysis),
        layer: None,
        effect: size,
        caveat: false,
    })
}

/// The most device memory beside the bytes of the weights. (The memory of the process is no measure
/// of a model: libraries and shader compilers are in it.)
fn memory(analyses: &[Analysis]) -> Option<Finding> {
    let peak = analyses.iter().filter_map(|analysis| {
        let weights = analysis.manifest.model.bytes as f64;
        let value = analysis.value("peak_bytes_in_use", None)?;
        (weights > 0.0 && value > 0.0).then(|| (effect(value, weights), (analysis, value, weights)))
    });
    let (size, (analysis, value, weights)) = strongest(peak)?;
    let more: Vec<String> =
        [("peak_bytes_reserved", "The allocator held"), ("peak_rss_bytes", "The process held")]
            .into_iter()
            .filter_map(|(metric, words)| {
                Some(format!(" {words} at most {}.", bytes(analysis.value(metric, None)?)))
            })
            .collect();
    let others =
        elsewhere(analyses, analysis, |other| Some(bytes(other.value("peak_bytes_in_use", None)?)));
    Some(Finding {
        headline: format!(
            "At most {} of device memory is in use, {} the {} of the weights{}",
            bytes(value),
            times(value / weights),
            bytes(weights),
            place(analyses, analysis)
        ),
        detail: format!("Measured after each forward pass.{}{others}", more.concat()),
        figure: Some("memory"),
        run: position(analyses, analysis),
        layer: None,
        effect: size,
        caveat: false,
    })
}

/// Memory that grows while a run goes on.
fn growth(analyses: &[Analysis]) -> Option<Finding> {
    /// Fewer passes are no trend.
    const FEWEST: usize = 50;
    const NOTABLE: f64 = 1.1;
    let grown = analyses.iter().filter_map(|analysis| {
        let steps = &analysis.steps;
        let (column, what) = if steps.bytes_in_use.iter().any(Option::is_some) {
            (&steps.bytes_in_use, "Device memory in use")
        } else {
            (&steps.rss_bytes, "Process memory")
        };
        let values: Vec<u64> = column.iter().flatten().copied().collect();
        if values.len() < FEWEST {
            return None;
        }
        let tenth = values.len() / 10;
        let first = median(&values[tenth..2 * tenth])?;
        let last = median(&values[values.len() - tenth..])?;
        (last > NOTABLE * first).then(|| (effect(last, first), (analysis, what, first, last)))
    });
    let (size, (analysis, what, first, last)) = strongest(grown)?;
    Some(Finding {
        headline: format!(
            "{what} grows by {} during the run{}, from {} to {}",
            percent(last / first - 1.0),
            place(analyses, analysis),
            bytes(first),
            bytes(last)
        ),
        detail: "Median of the second tenth of the forward passes against that of the last tenth."
            .to_owned(),
        figure: Some("memory"),
        run: position(analyses, analysis),
        layer: None,
        effect: size,
        caveat: false,
    })
}

fn median(values: &[u64]) -> Option<f64> {
    stats::median(&mut values.iter().map(|&value| value as f64).collect::<Vec<_>>())
}
