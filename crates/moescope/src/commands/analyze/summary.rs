//! A line per metric, at most 100 columns wide.

use moescope_analysis::{Analysis, Index, METRICS, MetricRow, Summary, summarise};
use moescope_report::sanitize;

use super::Rows;
use crate::ui;

/// Under the table.
const LEGEND: &str = "\
mean: over layers, experts and pairs (of those named, where there is one line for each)
95 %: mean of the ends of their intervals; lowest, highest: value, and where (L layer, e expert)
--metric NAME prints every row of a metric, --list what it is
";

/// A line per metric and run; per lag, size, percentile or rank where it has those.
pub(super) fn text(analyses: &[Analysis], rows: &Rows<'_>) -> String {
    let several = analyses.len() > 1;
    // Runs beside each other: the lines of one metric together, in the order they came.
    let mut lines: Vec<(&Analysis, Summary<'_>)> = Vec::new();
    for of_run in rows.chunk_by(|a, b| std::ptr::eq(a.0, b.0)) {
        let Some(&(analysis, _)) = of_run.first() else { continue };
        let found = summarise(of_run.iter().map(|(_, row)| *row));
        lines.extend(found.into_iter().map(|line| (analysis, line)));
    }
    lines.sort_by_key(|(_, line)| METRICS.iter().position(|metric| metric.name == line.metric));

    let mut table = Vec::new();
    for of_metric in lines.chunk_by(|a, b| a.1.metric == b.1.metric) {
        let name = of_metric[0].1.metric;
        // What a single line is about stands in it; several are listed under the name.
        let listed = of_metric.iter().any(|(analysis, line)| !at(analysis, line).is_empty());
        if listed {
            table.push(vec![name.to_owned()]);
        }
        for (analysis, line) in of_metric {
            let at = at(analysis, line);
            let first = if listed { format!("  {at}") } else { name.to_owned() };
            let run = analyses.iter().position(|other| std::ptr::eq(other, *analysis));
            let run = run.filter(|_| several).map(number);
            table.push([first].into_iter().chain(run).chain(cells(analysis, line)).collect());
        }
    }
    let run = several.then_some("run");
    let rest = ["mean", "95 %", "chance", "lowest", "highest", "unit"];
    let header: Vec<&str> = ["metric"].into_iter().chain(run).chain(rest).collect();
    // Names carry the labels.
    let names = analyses.iter().enumerate().map(|(at, analysis)| {
        let name = analysis.labelled_name();
        let name = sanitize(&name);
        if several { format!("run {}: {name}\n", number(at)) } else { format!("run: {name}\n") }
    });
    format!("{}\n{}\n{LEGEND}", names.collect::<String>(), ui::table(&header, &table))
}

/// Of a run, from 1.
fn number(at: usize) -> String {
    (at + 1).to_string()
}

/// The lag, size, percentile or rank and the phase that a line is about.
fn at(analysis: &Analysis, line: &Summary<'_>) -> String {
    let index = line.index.and(analysis.index_words(line.lowest));
    let parts: Vec<String> = index.into_iter().chain(line.phase.map(str::to_owned)).collect();
    parts.join(" ")
}

/// From the mean to the unit.
fn cells(analysis: &Analysis, line: &Summary<'_>) -> [String; 6] {
    let (scale, unit) = scaled(line.unit, line.mean);
    let value = |x: f64| brief(x / scale);
    let optional = |x: Option<f64>| x.map_or_else(String::new, value);
    let interval = line.interval.map(|(low, high)| format!("{} to {}", value(low), value(high)));
    let end = |row: &MetricRow| match line.rows {
        1 => String::new(),
        _ => format!("{} {}", value(row.value), place(analysis, row)).trim_end().to_owned(),
    };
    [
        value(line.mean),
        interval.unwrap_or_default(),
        optional(line.chance),
        end(line.lowest),
        end(line.highest),
        unit.to_owned(),
    ]
}

/// A unit of the size of a value, and how many of the unit it is.
fn scaled(unit: &'static str, value: f64) -> (f64, &'static str) {
    const MIB: f64 = 1024.0 * 1024.0;
    match unit {
        "ns" if value >= 1e9 => (1e9, "s"),
        "ns" => (1e6, "ms"),
        "bytes" if value >= 1024.0 * MIB => (1024.0 * MIB, "GiB"),
        "bytes" => (MIB, "MiB"),
        unit => (1.0, unit),
    }
}

/// Layer, domain and expert or pair of a row, in few letters.
fn place(analysis: &Analysis, row: &MetricRow) -> String {
    let within = match row.index {
        Some(Index::Expert(expert)) => Some(format!("e{expert}")),
        Some(Index::Pair(..)) => analysis.index_words(row).map(|words| words.replace(", ", "-")),
        _ => None,
    };
    let layer = row.layer.map(|layer| format!("L{layer}"));
    // A line has no room for more than the domain.
    let parts: Vec<String> = match &row.domain {
        Some(domain) => vec![domain.clone()],
        None => layer.into_iter().chain(within).collect(),
    };
    let place = parts.join(" ");
    let place = sanitize(&place);
    match place.chars().nth(PLACE) {
        None => place.into_owned(),
        Some(_) => place.chars().take(PLACE - 1).chain(['…']).collect(),
    }
}

/// Letters of a place that keep a line within 100 columns.
const PLACE: usize = 8;

/// Three significant digits and at most three decimals; small numbers as powers of ten.
fn brief(x: f64) -> String {
    match x.abs() {
        0.0 => "0".into(),
        a if a < 1e-3 => format!("{x:.0e}"),
        a => format!("{x:.*}", (2 - a.log10().floor() as i32).clamp(0, 3) as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_brief() {
        for (x, shown) in [
            (0.0, "0"),
            (1.0, "1.00"),
            (-0.512, "-0.512"),
            (0.00123, "0.001"),
            (0.000_12, "1e-4"),
            (47_012.0, "47012"),
            (12.34, "12.3"),
        ] {
            assert_eq!(brief(x), shown);
        }
        assert_eq!(scaled("ns", 2.5e6), (1e6, "ms"));
        assert_eq!(scaled("bytes", 3e9).1, "GiB");
        assert_eq!(scaled("ratio", 3e9), (1.0, "ratio"));
    }
}
