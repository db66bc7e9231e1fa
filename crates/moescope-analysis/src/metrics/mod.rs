//! The registry: one file per metric, of its name, and one line here; what several share is in `shared/`.

mod batch_working_set;
mod coactivation;
mod coactivation_excess;
mod coactivation_lift;
mod coefficient_of_variation;
mod coverage;
mod dead_experts;
mod distinct_experts;
mod domain_divergence;
mod domain_specialisation;
mod effective_experts;
mod expert_path;
mod gini;
mod gpu_imbalance;
mod gpu_imbalance_eplb;
mod gpu_imbalance_packed;
mod hit_rate_belady;
mod hit_rate_global_belady;
mod hit_rate_global_lfu;
mod hit_rate_global_lru;
mod hit_rate_global_lru_warm;
mod hit_rate_global_static;
mod hit_rate_lfu;
mod hit_rate_lru;
mod hit_rate_lru_warm;
mod hit_rate_static;
mod imbalance;
mod itl;
mod lorenz;
mod max_vio;
mod mean_logprob;
mod next_layer_exact;
mod next_layer_recall;
mod next_token_specialisation;
mod normalised_entropy;
mod path_information;
mod peak_bytes_in_use;
mod peak_bytes_reserved;
mod peak_rss_bytes;
mod prefetch_hit_rate;
mod prefetch_wasted;
mod pruned_saliency;
mod pruned_saliency_ean;
mod pruned_saliency_frequency;
mod pruned_traffic;
mod pruned_traffic_ean;
mod pruned_traffic_frequency;
mod reuse;
mod router_entropy;
mod router_margin;
mod saliency_ean;
mod saliency_reap;
mod shared;
mod step_latency;
mod throughput;
mod tokens;
mod tpot;
mod ttft;
mod utilisation;
mod vocabulary_specialisation;
mod weight_by_rank;
mod working_set;

pub(crate) use dead_experts::DEAD_EXPERTS;
pub use domain_divergence::jensen_shannon;
pub(crate) use shared::balance::LayerBalance;
pub use shared::balance::balance_of;
pub(crate) use shared::foretold::NextLayer;
pub(crate) use shared::global_cache::GlobalLru;
pub(crate) use shared::layer_cache::LayerLru;
pub(crate) use shared::passes::Passes;
pub(crate) use shared::placement::Placements;
pub(crate) use shared::saliency::LayerSaliency;
pub(crate) use shared::strongest_pairs::{StrongestPairs, uniform_lift};
pub(crate) use shared::vocabulary::LayerVocabulary;
pub use shared::vocabulary::{Specialist, Specialists};
pub(crate) use tokens::TOKENS;
pub(crate) use utilisation::{resampled_shares, shares};

use crate::metric::Metric;

/// Every metric, in the order of their rows in an analysis.
pub const METRICS: &[Metric] = &[
    TOKENS,
    utilisation::UTILISATION,
    imbalance::IMBALANCE,
    max_vio::MAX_VIO,
    coefficient_of_variation::COEFFICIENT_OF_VARIATION,
    gini::GINI,
    normalised_entropy::NORMALISED_ENTROPY,
    effective_experts::EFFECTIVE_EXPERTS,
    DEAD_EXPERTS,
    coverage::COVERAGE,
    lorenz::LORENZ,
    domain_specialisation::DOMAIN_SPECIALISATION,
    domain_divergence::DOMAIN_DIVERGENCE,
    vocabulary_specialisation::VOCABULARY_SPECIALISATION,
    next_token_specialisation::NEXT_TOKEN_SPECIALISATION,
    coactivation::COACTIVATION,
    coactivation_lift::COACTIVATION_LIFT,
    coactivation_excess::COACTIVATION_EXCESS,
    path_information::PATH_INFORMATION,
    expert_path::EXPERT_PATH,
    next_layer_recall::NEXT_LAYER_RECALL,
    next_layer_exact::NEXT_LAYER_EXACT,
    router_entropy::ROUTER_ENTROPY,
    router_margin::ROUTER_MARGIN,
    weight_by_rank::WEIGHT_BY_RANK,
    hit_rate_lru::HIT_RATE_LRU,
    hit_rate_lru_warm::HIT_RATE_LRU_WARM,
    hit_rate_lfu::HIT_RATE_LFU,
    hit_rate_static::HIT_RATE_STATIC,
    hit_rate_belady::HIT_RATE_BELADY,
    hit_rate_global_lru::HIT_RATE_GLOBAL_LRU,
    hit_rate_global_lru_warm::HIT_RATE_GLOBAL_LRU_WARM,
    hit_rate_global_lfu::HIT_RATE_GLOBAL_LFU,
    hit_rate_global_static::HIT_RATE_GLOBAL_STATIC,
    hit_rate_global_belady::HIT_RATE_GLOBAL_BELADY,
    prefetch_hit_rate::PREFETCH_HIT_RATE,
    prefetch_wasted::PREFETCH_WASTED,
    gpu_imbalance::GPU_IMBALANCE,
    gpu_imbalance_packed::GPU_IMBALANCE_PACKED,
    gpu_imbalance_eplb::GPU_IMBALANCE_EPLB,
    saliency_reap::SALIENCY_REAP,
    saliency_ean::SALIENCY_EAN,
    pruned_traffic::PRUNED_TRAFFIC,
    pruned_saliency::PRUNED_SALIENCY,
    pruned_traffic_ean::PRUNED_TRAFFIC_EAN,
    pruned_saliency_ean::PRUNED_SALIENCY_EAN,
    pruned_traffic_frequency::PRUNED_TRAFFIC_FREQUENCY,
    pruned_saliency_frequency::PRUNED_SALIENCY_FREQUENCY,
    reuse::REUSE,
    working_set::WORKING_SET,
    batch_working_set::BATCH_WORKING_SET,
    distinct_experts::DISTINCT_EXPERTS,
    mean_logprob::MEAN_LOGPROB,
    throughput::THROUGHPUT,
    step_latency::STEP_LATENCY,
    ttft::TTFT,
    tpot::TPOT,
    itl::ITL,
    peak_bytes_in_use::PEAK_BYTES_IN_USE,
    peak_bytes_reserved::PEAK_BYTES_RESERVED,
    peak_rss_bytes::PEAK_RSS_BYTES,
];
