//! What the benchmarks in `benches/` share.
//!
//! - [`model`]: the bundled model, real tokens, a recorder that writes
//! - [`tensors`]: made-up weights and activations of any size

pub mod model;
pub mod tensors;

pub use model::{Case, Fixture, Recording, datasets};
