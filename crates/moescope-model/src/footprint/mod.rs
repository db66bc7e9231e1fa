//! Bytes a model takes on a device, and bytes and operations a pass needs: plain arithmetic over a
//! [`ModelSpec`](crate::ModelSpec), before anything is loaded.
//!
//! - [`weights`]: bytes of the weights by part, held in a compute type or [stored](Stored) on disk
//! - [`kv_bytes`]: bytes of a KV cache, exactly as [`KvCache`](crate::KvCache) allocates them
//! - [`activations`]: an upper bound on what a pass holds beside them
//! - [`traffic`]: bytes a pass has to read (sparse MBU)
//! - [`flops`]: floating-point operations of a pass (sparse MFU)
//!
//! Units are bytes and floating-point operations (a multiplication and an addition are two). Dimension
//! letters as in [`crate::ops`].

mod activations;
mod flops;
mod kv;
mod stored;
mod traffic;
mod weights;

pub(crate) use activations::attention_scores;
pub use activations::{Activations, activations};
pub use flops::{Flops, flops, flops_per_token};
pub use kv::{kv_bytes, kv_bytes_per_token};
pub use stored::{Stored, stored};
pub use traffic::{Distinct, Traffic, traffic};
pub use weights::weights;

/// What one forward pass works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassShape {
    /// Sequences, B.
    pub batch: usize,
    /// New tokens per sequence, S.
    pub new: usize,
    /// Tokens each sequence had before, C.
    pub context: usize,
}

impl PassShape {
    /// A prompt of `tokens` tokens in each of `batch` sequences, in one pass.
    pub const fn prefill(batch: usize, tokens: usize) -> Self {
        PassShape { batch, new: tokens, context: 0 }
    }

    /// One more token in each of `batch` sequences, after `context` others.
    pub const fn decode(batch: usize, context: usize) -> Self {
        PassShape { batch, new: 1, context }
    }

    /// New tokens in all, T.
    pub const fn tokens(&self) -> usize {
        self.batch * self.new
    }
}
