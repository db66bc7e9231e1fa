//! The registry: one file per metric (or per group that shares its counts), one line each.

mod balance;
mod confidence;
mod coverage;
mod dead_experts;
mod divergence;
mod hit_rate;
mod hit_rate_global;
mod latency;
mod logprob;
mod memory;
mod placement;
mod prefetch;
mod saliency;
mod specialisation;
mod throughput;
mod tokens;
mod utilisation;

pub(crate) use balance::LayerBalance;
pub use balance::balance_of;
pub use divergence::jensen_shannon;
pub(crate) use utilisation::{resampled_shares, shares};

use crate::metric::Metric;

/// Every metric, in the order of their rows in an analysis.
pub const METRICS: &[Metric] = &[
    tokens::TOKENS,
    utilisation::UTILISATION,
    balance::IMBALANCE,
    balance::MAX_VIO,
    balance::COEFFICIENT_OF_VARIATION,
    balance::GINI,
    balance::NORMALISED_ENTROPY,
    balance::EFFECTIVE_EXPERTS,
    dead_experts::DEAD_EXPERTS,
    coverage::COVERAGE,
    specialisation::DOMAIN_SPECIALISATION,
    divergence::DOMAIN_DIVERGENCE,
    confidence::ROUTER_ENTROPY,
    confidence::ROUTER_MARGIN,
    confidence::WEIGHT_BY_RANK,
    hit_rate::HIT_RATE_LRU,
    hit_rate::HIT_RATE_LRU_WARM,
    hit_rate::HIT_RATE_LFU,
    hit_rate::HIT_RATE_STATIC,
    hit_rate::HIT_RATE_BELADY,
    hit_rate_global::HIT_RATE_GLOBAL_LRU,
    hit_rate_global::HIT_RATE_GLOBAL_LFU,
    hit_rate_global::HIT_RATE_GLOBAL_STATIC,
    hit_rate_global::HIT_RATE_GLOBAL_BELADY,
    prefetch::PREFETCH_HIT_RATE,
    prefetch::PREFETCH_WASTED,
    placement::GPU_IMBALANCE,
    placement::GPU_IMBALANCE_PACKED,
    placement::GPU_IMBALANCE_EPLB,
    saliency::SALIENCY_REAP,
    saliency::SALIENCY_EAN,
    saliency::PRUNED_TRAFFIC,
    saliency::PRUNED_SALIENCY,
    logprob::MEAN_LOGPROB,
    throughput::THROUGHPUT,
    latency::STEP_LATENCY,
    memory::PEAK_BYTES_IN_USE,
    memory::PEAK_BYTES_RESERVED,
    memory::PEAK_RSS_BYTES,
];
