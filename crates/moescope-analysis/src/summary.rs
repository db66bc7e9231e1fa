//! A metric in a line: its mean over layers and where it is lowest and highest.

use crate::row::{Index, MetricRow};

/// Rows of one metric over all layers (and experts or pairs), in a line.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary<'a> {
    /// Name of the metric.
    pub metric: &'static str,
    /// The lag, size, percentile or rank the line is about; `None` where it is about all rows.
    pub index: Option<Index>,
    /// Phase, where the metric is given by phase.
    pub phase: Option<&'static str>,
    /// Rows behind the line.
    pub rows: usize,
    /// Mean of their values.
    pub mean: f64,
    /// Mean of the lower and of the upper ends of their intervals, where all have one: what a row is known
    /// to. The mean itself is known at least as well.
    pub interval: Option<(f64, f64)>,
    /// The row with the lowest value, the first of equal ones.
    pub lowest: &'a MetricRow,
    /// The row with the highest value, the first of equal ones.
    pub highest: &'a MetricRow,
    /// Mean of their chance levels, where all have one.
    pub chance: Option<f64>,
    /// Unit.
    pub unit: &'static str,
}

/// Rows as lines, in their order. Lags and sizes are shown at powers of four, or at those of the smallest
/// where a metric has none of them (caches of 3, 6, 9, ... experts).
pub fn summarise<'a>(rows: impl IntoIterator<Item = &'a MetricRow>) -> Vec<Summary<'a>> {
    let rows: Vec<&MetricRow> = rows.into_iter().collect();
    rows.chunk_by(|a, b| a.metric == b.metric).flat_map(of_metric).collect()
}

/// The lines of one metric.
fn of_metric<'a>(rows: &[&'a MetricRow]) -> Vec<Summary<'a>> {
    let sizes = || {
        rows.iter().filter_map(|row| match row.index? {
            Index::Lag(n) | Index::Size(n) => Some(n),
            _ => None,
        })
    };
    let unit = match sizes().any(is_power_of_four) {
        true => 1,
        false => sizes().min().unwrap_or(1).max(1),
    };
    let shown = |n: u32| n.is_multiple_of(unit) && is_power_of_four(n / unit);
    // Beside each line sums of chance levels and of ends of intervals; NaN where a row has none.
    let mut lines: Vec<(Summary<'a>, [f64; 3])> = Vec::new();
    for &row in rows {
        let index = match row.index {
            Some(Index::Lag(n) | Index::Size(n)) if !shown(n) => continue,
            Some(Index::Expert(_) | Index::Pair(..)) | None => None,
            kept => kept,
        };
        let same = |(line, _): &&mut (Summary<'a>, [f64; 3])| {
            line.index == index && line.phase == row.phase
        };
        let (low, high) = row.interval.unwrap_or((f64::NAN, f64::NAN));
        let more = [row.chance.unwrap_or(f64::NAN), low, high];
        match lines.iter_mut().find(same) {
            Some((line, sums)) => {
                line.rows += 1;
                line.mean += row.value;
                sums.iter_mut().zip(more).for_each(|(sum, value)| *sum += value);
                if row.value < line.lowest.value {
                    line.lowest = row;
                }
                if row.value > line.highest.value {
                    line.highest = row;
                }
            }
            None => {
                let line = Summary {
                    metric: row.metric,
                    index,
                    phase: row.phase,
                    rows: 1,
                    mean: row.value,
                    interval: None,
                    lowest: row,
                    highest: row,
                    chance: None,
                    unit: row.unit,
                };
                lines.push((line, more));
            }
        }
    }
    lines
        .into_iter()
        .map(|(line, sums)| {
            let rows = line.rows as f64;
            let [chance, low, high] =
                sums.map(|sum| Some(sum / rows).filter(|mean| !mean.is_nan()));
            Summary { mean: line.mean / rows, interval: low.zip(high), chance, ..line }
        })
        .collect()
}

/// 1, 4, 16, 64, ...
fn is_power_of_four(n: u32) -> bool {
    n.is_power_of_two() && n.trailing_zeros().is_multiple_of(2)
}
