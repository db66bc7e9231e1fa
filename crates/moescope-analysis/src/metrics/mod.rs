//! The registry: one file per metric (or per group that shares its counts), one line each.

mod balance;
mod batch_working_set;
mod coactivation;
mod confidence;
mod coverage;
mod dead_experts;
mod distinct_experts;
mod divergence;
mod expert_path;
mod foretold;
mod hit_rate;
mod hit_rate_global;
mod latency;
mod logprob;
mod lorenz;
mod memory;
mod next_layer;
mod placement;
mod prefetch;
mod reuse;
mod saliency;
mod serving;
mod specialisation;
mod table_rows;
mod throughput;
mod tokens;
mod utilisation;
mod vocabulary;
mod working_set;

pub(crate) use balance::LayerBalance;
pub use balance::balance_of;
pub(crate) use coactivation::{StrongestPairs, uniform_lift};
pub use divergence::jensen_shannon;
pub(crate) use foretold::NextLayer;
pub(crate) use saliency::LayerSaliency;
pub(crate) use utilisation::shares;
pub(crate) use vocabulary::LayerVocabulary;
pub use vocabulary::{Specialist, Specialists};

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
    lorenz::LORENZ,
    specialisation::DOMAIN_SPECIALISATION,
    divergence::DOMAIN_DIVERGENCE,
    vocabulary::VOCABULARY_SPECIALISATION,
    vocabulary::NEXT_TOKEN_SPECIALISATION,
    coactivation::COACTIVATION,
    coactivation::COACTIVATION_LIFT,
    coactivation::COACTIVATION_EXCESS,
    expert_path::PATH_INFORMATION,
    expert_path::EXPERT_PATH,
    next_layer::NEXT_LAYER_RECALL,
    next_layer::NEXT_LAYER_EXACT,
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
    reuse::REUSE,
    working_set::WORKING_SET,
    batch_working_set::BATCH_WORKING_SET,
    distinct_experts::DISTINCT_EXPERTS,
    logprob::MEAN_LOGPROB,
    throughput::THROUGHPUT,
    latency::STEP_LATENCY,
    serving::TTFT,
    serving::TPOT,
    serving::ITL,
    memory::PEAK_BYTES_IN_USE,
    memory::PEAK_BYTES_RESERVED,
    memory::PEAK_RSS_BYTES,
];
