//! One binary for all tests of this crate: it links large libraries.

// A test that meets what it does not expect should panic.
#![allow(clippy::unwrap_used)]

#[path = "main/all_pairs.rs"]
mod all_pairs;
#[path = "main/cache.rs"]
mod cache;
#[path = "main/chance.rs"]
mod chance;
#[path = "main/columns.rs"]
mod columns;
#[path = "main/compare.rs"]
mod compare;
#[path = "main/compare_metrics.rs"]
mod compare_metrics;
#[path = "main/coverage.rs"]
mod coverage;
#[path = "main/coverage_compare.rs"]
mod coverage_compare;
#[path = "main/docs.rs"]
mod docs;
#[path = "main/edges.rs"]
mod edges;
#[path = "main/findings.rs"]
mod findings;
#[path = "main/gate.rs"]
mod gate;
#[path = "main/hand.rs"]
mod hand;
#[path = "main/hand_structure.rs"]
mod hand_structure;
#[path = "main/hit_rate.rs"]
mod hit_rate;
#[path = "main/known.rs"]
mod known;
#[path = "main/known_structure.rs"]
mod known_structure;
#[path = "main/placement.rs"]
mod placement;
#[path = "main/planted.rs"]
mod planted;
#[path = "main/predicted_speed.rs"]
mod predicted_speed;
#[path = "main/prefetch.rs"]
mod prefetch;
#[path = "main/properties.rs"]
mod properties;
#[path = "main/run_dir.rs"]
mod run_dir;
#[path = "main/saliency.rs"]
mod saliency;
#[path = "main/speed.rs"]
mod speed;
#[path = "main/stats.rs"]
mod stats;
#[path = "main/support.rs"]
mod support;
#[path = "main/synthetic.rs"]
mod synthetic;
#[path = "main/tables.rs"]
mod tables;
