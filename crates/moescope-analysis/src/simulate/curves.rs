//! Hit rates of a run by policy, ready to be turned into speeds, and what a prefetch brings.

use moescope_trace::Phase;

use crate::metrics::METRICS;
use crate::row::{Index, MetricRow};
use crate::study::Study;

/// Hit rates of one policy by the experts that the cache holds in all.
#[derive(Clone, Debug)]
pub struct CacheCurve {
    /// Name of the metric, such as `hit_rate_lru`.
    pub metric: &'static str,
    /// Whether all layers share one cache; else each has one of as many experts.
    pub shared: bool,
    /// Experts held over all layers, ascending, and the hit rate.
    pub points: Vec<(usize, MetricRow)>,
}

impl CacheCurve {
    /// The hit rate of a cache of `experts` experts over all layers: the largest size that is no
    /// larger. `None` where there is no such size.
    pub fn at(&self, experts: usize) -> Option<&MetricRow> {
        let fits = self.points.iter().take_while(|(held, _)| *held <= experts);
        fits.last().map(|(_, row)| row)
    }
}

/// The curves of every policy over generated tokens, or over whole sequences where a run has none;
/// and which it was.
pub fn cache_curves(study: &Study<'_>) -> (Option<Phase>, Vec<CacheCurve>) {
    let both = study.phases().any(|scope| scope.phase == Some(Phase::Decode));
    let phase = both.then_some(Phase::Decode);
    let held = |per_layer: usize| -> usize {
        study.data.layers.iter().map(|layer| layer.experts.min(per_layer)).sum()
    };
    let hit_rates = METRICS.iter().filter(|metric| metric.name.starts_with("hit_rate_"));
    let curves = hit_rates
        .filter(|metric| metric.needs.iter().all(|need| study.data.has(*need)))
        .map(|metric| {
            let shared = metric.name.starts_with("hit_rate_global_");
            let rows = (metric.compute)(study).into_iter();
            let points = rows
                .filter(|row| row.layer.is_none() && row.domain.is_none())
                .filter(|row| row.phase == phase.map(Phase::as_str))
                .filter_map(|row| match row.index? {
                    Index::Size(size) if shared => Some((size as usize, row)),
                    Index::Size(size) => Some((held(size as usize), row)),
                    _ => None,
                })
                .collect();
            CacheCurve { metric: metric.name, shared, points }
        })
        .filter(|curve| !curve.points.is_empty());
    (phase, curves.collect())
}

/// A next-layer prefetch of so many experts per layer, over all layers that have one before them.
#[derive(Clone, Debug)]
pub struct PrefetchPoint {
    /// Experts brought per layer and token, p.
    pub brought: u32,
    /// Share of the experts needed that are there (`prefetch_hit_rate`).
    pub hit_rate: MetricRow,
    /// Share of what is brought that is not needed (`prefetch_wasted`).
    pub wasted: MetricRow,
}

/// What a next-layer prefetch brings, by the number of experts brought, over all tokens of the half of the
/// sequences that measures. Empty where there is no second MoE layer, no second sequence, or layers differ in
/// their number of experts.
pub fn prefetch_points(study: &Study<'_>) -> Vec<PrefetchPoint> {
    let rows = |name: &str| -> Vec<MetricRow> {
        let metrics = METRICS.iter().filter(|metric| metric.name == name);
        metrics
            .filter(|metric| metric.needs.iter().all(|need| study.data.has(*need)))
            .flat_map(|metric| (metric.compute)(study))
            .filter(|row| row.layer.is_none() && row.domain.is_none())
            .collect()
    };
    let both = rows("prefetch_hit_rate").into_iter().zip(rows("prefetch_wasted"));
    both.filter_map(|(hit_rate, wasted)| match hit_rate.index? {
        Index::Size(brought) => Some(PrefetchPoint { brought, hit_rate, wasted }),
        _ => None,
    })
    .collect()
}
