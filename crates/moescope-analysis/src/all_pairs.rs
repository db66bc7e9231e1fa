//! Every pair of experts of a layer, and every transition to the next: whole tables instead of what stands
//! out in them.
//!
//! Nothing is chosen here, so nothing has to be measured on other text than it was chosen on: all sequences
//! count. There are E² rows for each layer, so these are computed only where they are asked for.

mod cells;
mod coactivation;
mod expert_path;

use crate::metric::Metric;

/// Metrics of [`crate::METRICS`] that report a choice of pairs, with the rows of all pairs.
pub const ALL_PAIRS: &[Metric] =
    &[coactivation::COACTIVATION, coactivation::COACTIVATION_LIFT, expert_path::EXPERT_PATH];
