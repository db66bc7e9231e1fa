//! What several metrics compute together: counted once, reported by each.

pub(crate) mod balance;
pub(crate) mod first_choices;
pub(crate) mod foretold;
pub(crate) mod global_cache;
pub(crate) mod layer_cache;
pub(crate) mod means;
pub(crate) mod memory;
pub(crate) mod next_layer;
pub(crate) mod pair_fit;
pub(crate) mod passes;
pub(crate) mod percentiles;
pub(crate) mod placement;
pub(crate) mod prefetch;
pub(crate) mod saliency;
pub(crate) mod serving;
pub(crate) mod spans;
pub(crate) mod step_groups;
pub(crate) mod strongest_pairs;
pub(crate) mod table_rows;
pub(crate) mod vocabulary;
