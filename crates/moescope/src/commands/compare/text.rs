//! A comparison for a person: a table of routing, a table of output, speed and memory, and what is missing.

use moescope_analysis::{
    COMPARISON_METRICS, Comparison, ComparisonRow, Index, MetricRow, TokenWise,
};

use super::{hint, unsaid};
use crate::ui;

/// What rows of a comparison say, with tables as `table` makes them.
pub(super) fn text(
    comparison: &Comparison,
    rows: &[ComparisonRow<'_>],
    escape: impl Fn(&str) -> String,
    table: impl Fn(&[&str], &[Vec<String>]) -> String,
) -> String {
    // Two trailing spaces keep the lines apart in Markdown.
    let mut out = format!(
        "base: {}  \nnew:  {}\n\n",
        escape(&comparison.base_name),
        escape(&comparison.other_name)
    );
    match &comparison.token_wise {
        TokenWise::Compared { tokens, left_out } => {
            out.push_str(&format!(
                "{} tokens that both read after the same tokens",
                ui::count(*tokens as u64)
            ));
            if *left_out > 0 {
                out.push_str(&format!(
                    "; {} of the base come after a difference or have no partner",
                    ui::count(*left_out as u64)
                ));
            }
            out.push_str("\n\n");
        }
        TokenWise::Refused(refusal) => {
            out.push_str(&format!("not compared token by token: {refusal}\n\n"));
        }
    }
    let routing = routing(rows, &escape);
    if !routing.is_empty() {
        let chance = "by chance";
        let header =
            ["", "same experts", "95 %", chance, "same set", "other first", "shift", chance];
        out.push_str(&table(&header, &routing));
        out.push_str(
            "\nsame experts: mean share of a token's experts; other first: tokens whose first choice differs;\n\
             shift: Jensen-Shannon divergence of the use of experts, nats; by chance: what independent samples show\n\n",
        );
    }
    let rest = rest(rows, &escape);
    if !rest.is_empty() {
        out.push_str(&table(&["", "base", "new", "new / base", "95 %"], &rest));
    }
    // What was said about tokens holds for output too.
    let missing = unsaid(comparison);
    if !missing.is_empty() {
        out.push('\n');
    }
    for (part, refusal) in missing {
        out.push_str(&format!("not compared: {part}: {refusal}{}\n", hint(refusal)));
    }
    out
}

/// Layer, domain and phase of a line about routing.
type Place<'a> = (Option<u16>, Option<&'a str>, Option<&'static str>);

fn place(row: &MetricRow) -> Place<'_> {
    (row.layer, row.domain.as_deref(), row.phase)
}

/// Routing by layer, the whole model after the layers; domains and phases as means over layers.
fn routing(rows: &[ComparisonRow<'_>], escape: &impl Fn(&str) -> String) -> Vec<Vec<String>> {
    let metrics = ["routing_overlap", "same_experts", "top1_flips", "distribution_shift"];
    let rows: Vec<&MetricRow> =
        rows.iter().map(|(_, row)| *row).filter(|row| metrics.contains(&row.metric)).collect();
    let mut places: Vec<Place<'_>> = Vec::new();
    for &row in &rows {
        let part = row.domain.is_some() || row.phase.is_some();
        let hidden = part && row.layer.is_some();
        if !hidden && !places.contains(&place(row)) {
            places.push(place(row));
        }
    }
    let of_place = |at: &Place<'_>| {
        let find = |metric: &str| {
            rows.iter().copied().find(|row| row.metric == metric && place(row) == *at)
        };
        let or_none = |shown: Option<String>| shown.unwrap_or_else(|| "-".to_owned());
        let share = |row: Option<&MetricRow>| or_none(row.map(|row| percent(row.value)));
        let overlap = find("routing_overlap");
        let shift = find("distribution_shift");
        let name = match *at {
            (Some(layer), ..) => format!("layer {layer}"),
            (None, None, None) => "all layers".to_owned(),
            (None, domain, phase) => {
                let parts: Vec<String> =
                    domain.map(escape).into_iter().chain(phase.map(str::to_owned)).collect();
                parts.join(", ")
            }
        };
        vec![
            name,
            share(overlap),
            or_none(
                overlap
                    .and_then(|row| row.interval)
                    .map(|(low, high)| format!("{} to {}", percent(low), percent(high))),
            ),
            or_none(overlap.and_then(|row| row.chance).map(percent)),
            share(find("same_experts")),
            share(find("top1_flips")),
            or_none(shift.map(|row| small(row.value))),
            or_none(shift.and_then(|row| row.chance).map(small)),
        ]
    };
    places.iter().map(of_place).collect()
}

/// Output, speed and memory.
fn rest(rows: &[ComparisonRow<'_>], escape: &impl Fn(&str) -> String) -> Vec<Vec<String>> {
    type Shown = fn(f64) -> String;
    let ratio: Shown = |x| format!("x{x:.3}");
    let nats: Shown = |x| format!("{x:.4}");
    let kinds: [(&str, &str, Shown, Shown); 10] = [
        ("equal_tokens", "equal generated tokens", percent, percent),
        ("logprob_difference", "log-probability distance, nats", nats, nats),
        ("logprob_change", "log-probability change, nats", nats, nats),
        ("speed_ratio", "tokens/s", ratio, |x| format!("{x:.0}")),
        ("ttft_ratio", "time to first token, ms", ratio, milliseconds),
        ("tpot_ratio", "time per output token, ms", ratio, milliseconds),
        ("itl_ratio", "gap between tokens, ms", ratio, milliseconds),
        ("bytes_in_use_ratio", "device memory in use", ratio, bytes),
        ("bytes_reserved_ratio", "device memory reserved", ratio, bytes),
        ("rss_ratio", "process memory", ratio, bytes),
    ];
    let mut lines = Vec::new();
    for (metric, words, shown, shown_side) in kinds {
        let of_each = COMPARISON_METRICS.iter().find(|m| m.name == metric).and_then(|m| m.of_each);
        // Which run, and its median where there are percentiles.
        let side = |at: usize, row: &MetricRow| {
            let found = rows.iter().find(|(names, side)| {
                names[1 - at].is_none()
                    && Some(side.metric) == of_each
                    && side.phase == row.phase
                    && matches!(side.index, None | Some(Index::Percentile(50)))
            });
            found.map_or_else(String::new, |(_, side)| with_interval(side, shown_side))
        };
        for (_, row) in rows.iter().filter(|(_, row)| row.metric == metric) {
            // A latency has one phase.
            let phase = row.phase.filter(|_| !words.ends_with("ms"));
            let parts = [row.domain.as_deref().map(escape), phase.map(str::to_owned)];
            let name = [Some(words.to_owned())].into_iter().chain(parts).flatten();
            let interval = row.interval.map_or_else(
                || "-".to_owned(),
                |(low, high)| format!("{} to {}", shown(low), shown(high)),
            );
            lines.push(vec![
                name.collect::<Vec<_>>().join(", "),
                side(0, row),
                side(1, row),
                shown(row.value),
                interval,
            ]);
        }
    }
    lines
}

/// A value with its interval in brackets.
fn with_interval(row: &MetricRow, shown: fn(f64) -> String) -> String {
    let interval = row.interval.map(|(low, high)| format!(" ({} to {})", shown(low), shown(high)));
    shown(row.value) + &interval.unwrap_or_default()
}

/// A share in percent; one that is nearly all is not rounded to all.
fn percent(share: f64) -> String {
    match share {
        share if share < 1.0 && share > 0.999 => format!("{:.3} %", (share * 1e5).floor() / 1e3),
        share if share > 0.0 && share < 0.001 => format!("{:.3} %", (share * 1e5).ceil() / 1e3),
        share => format!("{:.1} %", share * 100.0),
    }
}

/// Nats, with the digits that a small number needs.
fn small(x: f64) -> String {
    if x > 0.0 && x < 1e-3 { format!("{x:.1e}") } else { format!("{x:.4}") }
}

/// Nanoseconds as milliseconds.
fn milliseconds(ns: f64) -> String {
    format!("{:.2}", ns / 1e6)
}

fn bytes(x: f64) -> String {
    ui::bytes(x as u64)
}

/// Rows as a Markdown table: the first column left, the others right.
pub(super) fn markdown(header: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let header: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    let rule: Vec<String> =
        (0..header.len()).map(|at| if at == 0 { "---" } else { "---:" }.to_owned()).collect();
    let rows: String = rows.iter().map(|row| line(row)).collect();
    line(&header) + &line(&rule) + &rows
}
