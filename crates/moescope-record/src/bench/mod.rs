//! The benchmark protocol: a grid of configurations measured so that the numbers hold up.
//!
//! - [`grid`]: lists and ranges of sizes, and the configurations they make
//! - [`workload`]: the tokens every configuration reads, the same in every arm
//! - `plan`: what a grid needs, before anything is loaded
//! - `pass`: one timed pass through a configuration
//! - `facts`: what a configuration does however long it takes, from a pass that is not timed
//! - `failure`: errors and panics of a pass, kept in its row
//! - [`session`]: cold passes, facts, warm-ups, and samples in turns
//! - `lane`: one row of one model within a session
//! - `warm_up`: when a row is warm
//! - `watch`: progress, and a wish to stop
//! - [`result`]: rows as a bench result
//!
//! Letters: B sequences at once, P prompt tokens, G generated tokens, D tokens in the cache before.

pub mod error;
mod facts;
pub(crate) mod failure;
pub mod grid;
mod lane;
mod pass;
mod plan;
pub mod result;
mod rng;
mod rss;
pub mod session;
mod warm_up;
mod watch;
pub mod workload;

pub use error::BenchError;
pub use grid::{Grid, Numbers, Pair};
pub use plan::{Plan, check_context, check_room};
pub use session::{Arm, Bench, Measured, Options};
pub use warm_up::WarmUp;
pub use watch::{Progress, Stage};
pub use workload::Workload;

#[cfg(test)]
mod tests;
