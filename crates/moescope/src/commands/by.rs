//! What rows of a long table are split by.

use clap::ValueEnum;
use moescope_analysis::MetricRow;

/// What rows are split by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// Over all domains and both phases, unless a metric has no such rows.
    None,
    /// Rows of single domains.
    Domain,
    /// Rows of single phases.
    Phase,
    /// All rows.
    All,
}

impl By {
    /// The rows asked for, of rows in which those of a metric are next to each other.
    pub(crate) fn of<'a, T: Copy + 'a>(
        self,
        rows: &[T],
        row: impl Fn(T) -> &'a MetricRow,
    ) -> Vec<T> {
        let of_metric = |rows: &[T]| -> Vec<T> {
            let (domain, phase) =
                (|kept: &T| row(*kept).domain.is_some(), |kept: &T| row(*kept).phase.is_some());
            let mut rows = rows.to_vec();
            match self {
                By::Domain => rows.retain(domain),
                By::Phase => rows.retain(|kept| phase(kept) && !domain(kept)),
                By::All => {}
                By::None => {
                    if !rows.iter().all(domain) {
                        rows.retain(|kept| !domain(kept));
                    }
                    if !rows.iter().all(phase) {
                        rows.retain(|kept| !phase(kept));
                    }
                }
            }
            rows
        };
        rows.chunk_by(|a, b| row(*a).metric == row(*b).metric).flat_map(of_metric).collect()
    }

    /// Names the metrics that have rows, but none of those asked for.
    pub(crate) fn note<'a>(
        self,
        all: impl Iterator<Item = &'a MetricRow>,
        kept: impl Iterator<Item = &'a MetricRow>,
    ) -> Option<String> {
        let kept: Vec<&str> = kept.map(|row| row.metric).collect();
        let mut without: Vec<&str> = Vec::new();
        for row in all {
            // Rows of a metric are next to each other.
            if without.last() != Some(&row.metric) && !without.contains(&row.metric) {
                without.push(row.metric);
            }
        }
        without.retain(|metric| !kept.contains(metric));
        let what = match self {
            By::Domain => "domain",
            By::Phase => "phase",
            By::None | By::All => return None,
        };
        (!without.is_empty()).then(|| format!("no rows by {what}: {}", without.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(metric: &'static str, domain: Option<&str>, phase: Option<&'static str>) -> MetricRow {
        MetricRow {
            metric,
            layer: None,
            index: None,
            domain: domain.map(str::to_owned),
            phase,
            value: 0.0,
            interval: None,
            chance: None,
            unit: "ratio",
        }
    }

    #[test]
    fn rows_are_chosen_by_metric() {
        let rows = [
            row("a", None, None),
            row("a", None, Some("decode")),
            row("a", Some("x"), None),
            row("a", Some("x"), Some("decode")),
            row("b", Some("x"), None),
            row("c", None, Some("decode")),
        ];
        let all: Vec<&MetricRow> = rows.iter().collect();
        let places = |by: By| -> Vec<usize> {
            let kept = by.of(&all, |row| row);
            kept.iter().map(|kept| rows.iter().position(|row| row == *kept).unwrap_or(9)).collect()
        };
        assert_eq!(places(By::None), [0, 4, 5]);
        assert_eq!(places(By::Domain), [2, 3, 4]);
        assert_eq!(places(By::Phase), [1, 5]);
        assert_eq!(places(By::All), [0, 1, 2, 3, 4, 5]);
        let note = |by: By| by.note(rows.iter(), by.of(&all, |row| row).into_iter());
        assert_eq!(note(By::Domain).as_deref(), Some("no rows by domain: c"));
        assert_eq!(note(By::Phase).as_deref(), Some("no rows by phase: b"));
        assert_eq!((note(By::None), note(By::All)), (None, None));
    }
}
