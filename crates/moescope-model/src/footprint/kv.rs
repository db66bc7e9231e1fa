//! Bytes of the KV cache.

use crate::spec::{KvSpec, ModelSpec};

/// Bytes of the KV cache of `batch` sequences of at most `context` tokens:
/// `batch x sum over layers of slots x heads x (D + Dv) x 4`, where slots is the context, or the window of a
/// sliding layer where that is shorter. Layers that use the keys and values of another keep none; latent
/// attention keeps its latents alone.
pub fn kv_bytes(spec: &ModelSpec, batch: usize, context: usize) -> u64 {
    let layer = |kv: &KvSpec| kv.bytes_per_slot().saturating_mul(kv.slots(context) as u64);
    let one = spec.kv.iter().map(layer).fold(0, u64::saturating_add);
    one.saturating_mul(batch as u64)
}

/// Bytes one token more takes after `context` others: all layers at first; once it is as long as the
/// window, only those that attend to everything.
pub fn kv_bytes_per_token(spec: &ModelSpec, context: usize) -> u64 {
    let growing = spec.kv.iter().filter(|kv| kv.window.is_none_or(|window| context < window));
    growing.map(|kv| kv.bytes_per_slot()).sum()
}
