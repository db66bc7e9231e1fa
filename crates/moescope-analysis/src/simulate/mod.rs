//! What a recorded trace says about machines it did not run on: expert caches, prefetching,
//! placement over GPUs, and the speed a hit rate would give.
//!
//! Everything here is a plain function over arrays and works without a run directory: the ids
//! `[T, k]` of a layer are enough.
//!
//! ```
//! use moescope_analysis::simulate::cache::{Hits, LayerRequests, Lru};
//!
//! // One layer of 4 experts, 2 per token, ids in rank order: [T, k].
//! let ids = [0, 1, 0, 2, 0, 1];
//! let requests = LayerRequests::new(&ids, 2, 4);
//! let mut hits = Hits::new(4, 1);
//! Lru::new(4).run(&requests, |_, depths| hits.add(depths));
//! // A cache of two experts: misses 0 and 1, hits 0, hits 0 (1 made way for 2).
//! assert_eq!((hits.at_most(2), hits.requests()), (2, 6));
//! // A cache of all four misses each expert once.
//! assert_eq!(hits.at_most(4), 3);
//! ```

pub mod cache;
mod curves;
pub mod placement;
pub mod prefetch;
pub mod saliency;
pub mod speed;

pub use curves::{CacheCurve, PrefetchPoint, cache_curves, prefetch_points};
