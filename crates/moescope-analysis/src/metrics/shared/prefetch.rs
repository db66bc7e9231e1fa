//! Rows of next-layer prefetches.

use crate::metric::Metric;
use crate::row::{Index, MetricRow};
use crate::study::Study;

/// Rows of the hit rate, or of what is `wasted`.
pub(crate) fn rows(study: &Study<'_>, metric: &Metric, wasted: bool) -> Vec<MetricRow> {
    let mut rows = Vec::new();
    for prefetch in &study.next_layer().prefetches {
        let row = study.row(metric.name, metric.unit, &prefetch.scope);
        for (brought, &(value, interval)) in (1u32..).zip(&prefetch.hit_rates) {
            // Hits per lookup are k / p times the share of what is brought that is needed.
            let needed = prefetch.top_k / f64::from(brought);
            let chance = f64::from(brought) / prefetch.experts as f64;
            let of =
                |hit_rate: f64| if wasted { (1.0 - hit_rate * needed).max(0.0) } else { hit_rate };
            rows.push(MetricRow {
                layer: prefetch.layer,
                index: Some(Index::Size(brought)),
                value: of(value),
                interval: interval.map(|(low, high)| match wasted {
                    true => (of(high), of(low)),
                    false => (low, high),
                }),
                chance: Some(of(chance)),
                ..row.clone()
            });
        }
    }
    rows
}
