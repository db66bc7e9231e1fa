//! Next-layer prefetch: what is there in time, and what was brought for nothing.

use crate::metric::{Metric, Need};
use crate::row::{Index, MetricRow};
use crate::study::Study;

/// Rows: layer x size (p = 1..E), about the experts of that layer, foretold from the MoE layer before
/// it; none x size over all of them. Interval: bootstrap over sequences.
pub(crate) const PREFETCH_HIT_RATE: Metric = Metric {
    name: "prefetch_hit_rate",
    title: "Next-layer prefetch, hit rate",
    unit: "ratio",
    formula: "share of S_t(l) among the p experts f with the largest sum over e in S_t(l-1) of P(f given \
              e), P counted on one half of the sequences, t from the other",
    chance: "p/E",
    source: "Prefetch by transition counts while the layer before computes. At most 2^18 tokens, evenly \
             spread, are looked at per layer",
    needs: &[Need::Ids, Need::Layers],
    compute: |study| rows(study, &PREFETCH_HIT_RATE),
};

/// Rows as `prefetch_hit_rate`.
pub(crate) const PREFETCH_WASTED: Metric = Metric {
    name: "prefetch_wasted",
    title: "Next-layer prefetch, wasted transfers",
    unit: "ratio",
    formula: "share of the p experts brought that the token does not select: 1 - hits / p, without a cache",
    chance: "1 - k/E",
    source: "What a prefetch costs the link",
    needs: &[Need::Ids, Need::Layers],
    compute: |study| rows(study, &PREFETCH_WASTED),
};

fn rows(study: &Study<'_>, metric: &Metric) -> Vec<MetricRow> {
    let wasted = metric.name == PREFETCH_WASTED.name;
    let row = study.row(metric.name, metric.unit, study.overall());
    let mut rows = Vec::new();
    for prefetch in &study.next_layer().prefetches {
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
