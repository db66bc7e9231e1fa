//! Caches of experts, for every cache size from one pass.
//!
//! **The rule.** A request is the set of k experts that one token uses at one layer. All k are
//! looked up before any is inserted. Then the cache keeps, of the experts it held and those of the
//! request, the m that its policy ranks highest. An expert that is not kept was loaded, used and
//! dropped, so the rule also says what happens where k is larger than m.
//!
//! | policy | ranks highest |
//! |---|---|
//! | [`Lru`] | the most recently used; within a request the one the router ranked higher |
//! | [`Lfu`] | the most often used since the cache was cold; of equal ones the more recent |
//! | [`Fixed`] | a given order (from other sequences): the cache never changes |
//! | [`Belady`] | the one needed again soonest: no policy that loads on demand has more hits |
//!
//! **One pass for all sizes.** None of these rankings depends on m, so the cache of m experts is
//! always a part of the cache of m + 1 (Mattson, Gecsei, Slutz and Traiger, "Evaluation techniques
//! for storage hierarchies", 1970). Each expert therefore has a *depth*: the number of experts that
//! any cache would rather keep. A cache of m experts has it if and only if its depth is below m, and
//! a histogram of depths ([`Hits`]) is the curve over all sizes.
//!
//! **Where it begins.** A run of a policy begins with an empty cache: the first use of an expert is
//! a miss at every size ([`ABSENT`]). What follows is up to the caller: run it over one sequence at a
//! time for caches that are cold at the start of each, over several in a row for one that stays.

mod belady;
mod budget;
mod fixed;
mod future;
mod hits;
mod lfu;
mod lists;
mod lru;
mod requests;
mod uniform;

pub use belady::{Belady, Start};
pub use budget::belady_hits;
pub use fixed::Fixed;
pub use future::Future;
pub use hits::Hits;
pub use lfu::Lfu;
pub use lru::Lru;
pub use requests::{LayerRequests, ModelRequests, Requests};
pub use uniform::{ColdStart, UniformRuns};

/// Depth of an expert that no cache holds, however large: its first use.
pub const ABSENT: u32 = u32::MAX;
