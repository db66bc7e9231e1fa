//! The KV cache: keys and values of the tokens seen, per layer.
//!
//! A full-attention layer keeps every token up to the capacity. A sliding layer keeps its window
//! as a ring: the token at position p lives in slot p mod window. Shapes: B sequences, N key/value
//! heads, S new tokens, C slots, D size of a key, Dv size of a value.

use burn::tensor::{Device, Tensor, s};

use crate::{
    error::{ModelError, Result},
    ops::attention::{CausalMask, KeySpan},
    spec::{KvSpec, ModelSpec},
};

/// Keys and values of one batch of equally long sequences.
pub struct KvCache {
    layers: Vec<LayerCache>,
    len: usize,
    batch: usize,
    capacity: usize,
}

impl KvCache {
    /// An empty cache for `batch` sequences of at most `capacity` tokens.
    ///
    /// # Errors
    ///
    /// `capacity` is beyond the model's context.
    pub fn new(spec: &ModelSpec, batch: usize, capacity: usize, device: &Device) -> Result<Self> {
        if capacity > spec.context {
            return Err(ModelError::ContextLength { tokens: capacity, context: spec.context });
        }
        let layer = |kv: &KvSpec| LayerCache::new(kv, batch, capacity, device);
        Ok(KvCache { layers: spec.kv.iter().map(layer).collect(), len: 0, batch, capacity })
    }

    /// Tokens seen per sequence.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token has been seen.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sequences.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Tokens a sequence may have.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes held on the device; [`crate::footprint::kv_bytes`] tells them beforehand.
    pub fn bytes(&self) -> u64 {
        let stores = self.layers.iter().flat_map(|layer| [&layer.keys.store, &layer.values.store]);
        let bytes = |store: &Tensor<4>| {
            (store.dims().iter().product::<usize>() * store.dtype().size()) as u64
        };
        stores.flatten().map(bytes).sum()
    }

    /// Forgets all tokens and keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Remembers the tokens seen so far, so that [`KvCache::rewind`] can forget those that come later. Copies
    /// only what later tokens overwrite: layers whose window is below the capacity.
    pub fn mark(&self) -> CacheMark {
        let copies = |layer: &LayerCache| [&layer.keys, &layer.values].map(|r| self.overwritten(r));
        CacheMark { len: self.len, layers: self.layers.iter().map(copies).collect() }
    }

    fn overwritten(&self, ring: &Ring) -> Option<Tensor<4>> {
        let store = ring.store.as_ref().filter(|_| self.len > 0 && ring.slots < self.capacity)?;
        // Written into memory of its own: a handle would make the next write of a token copy the whole ring.
        Some(store.zeros_like().slice_assign(s![.., .., .., ..], store.clone()))
    }

    /// Forgets all tokens after `mark` and keeps the memory. The mark is of this cache, and the cache has not
    /// been cleared or rewound beyond it since.
    pub fn rewind(&mut self, mark: &CacheMark) {
        for (layer, copies) in self.layers.iter_mut().zip(&mark.layers) {
            for (ring, copy) in [&mut layer.keys, &mut layer.values].into_iter().zip(copies) {
                let Some(copy) = copy else { continue };
                let write = |store: Tensor<4>| store.slice_assign(s![.., .., .., ..], copy.clone());
                ring.store = ring.store.take().map(write);
            }
        }
        self.len = mark.len;
    }

    /// Room for `tokens` more, or the error that says how many fit.
    pub(crate) fn check_room(&self, tokens: usize) -> Result<()> {
        match self.len + tokens <= self.capacity {
            true => Ok(()),
            false => {
                Err(ModelError::ContextLength { tokens: self.len + tokens, context: self.capacity })
            }
        }
    }

    /// Adds the keys `[B, N, S, D]` and values `[B, N, S, Dv]` of the current tokens to a layer; returns
    /// all keys and values the current tokens may attend to and which of them each token sees.
    pub(crate) fn extend(
        &mut self,
        layer: usize,
        keys: Tensor<4>,
        values: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>, KeySpan) {
        let layer = &mut self.layers[layer];
        let (values, _) = layer.values.extend(values, self.len);
        let (keys, span) = layer.keys.extend(keys, self.len);
        (keys, values, span)
    }

    /// As [`KvCache::extend`] for a layer whose values are the first columns of its keys
    /// ([`KvSpec::value_dim`] 0): `[B, N, S, D]` are kept once.
    pub(crate) fn extend_latent(
        &mut self,
        layer: usize,
        latents: Tensor<4>,
    ) -> (Tensor<4>, KeySpan) {
        self.layers[layer].keys.extend(latents, self.len)
    }

    /// Counts the current tokens as seen, once all layers are done.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

/// A point that a cache can go back to; see [`KvCache::mark`].
pub struct CacheMark {
    len: usize,
    /// Keys and values of every layer that later tokens overwrite.
    layers: Vec<[Option<Tensor<4>>; 2]>,
}

struct LayerCache {
    keys: Ring,
    values: Ring,
}

impl LayerCache {
    fn new(kv: &KvSpec, batch: usize, capacity: usize, device: &Device) -> Self {
        let ring = |dim| Ring::new(kv, dim, batch, capacity, device);
        LayerCache { keys: ring(kv.head_dim), values: ring(kv.value_dim) }
    }
}

struct Ring {
    /// `[B, N, C, D]`; absent in a layer that reuses another's.
    store: Option<Tensor<4>>,
    window: Option<usize>,
    slots: usize,
}

impl Ring {
    fn new(kv: &KvSpec, dim: usize, batch: usize, capacity: usize, device: &Device) -> Self {
        let slots = kv.slots(capacity);
        let empty = || Tensor::zeros([batch, kv.heads, slots, dim], device);
        Ring { store: (kv.heads * dim > 0).then(empty), window: kv.window, slots }
    }

    fn extend(&mut self, rows: Tensor<4>, seen: usize) -> (Tensor<4>, KeySpan) {
        // Callers extend only layers that have heads of their own, with the rows they keep.
        let Some(old) = self.store.take() else { unreachable!("layer without a cache") };
        let new = rows.dims()[2];
        // More than one new token needs the keys in the order of their positions: the old ones that
        // are still in reach, then the new ones. One new token sees everything the ring holds.
        if new == 1 {
            let ring = write(old, rows, seen, self.slots);
            self.store = Some(ring.clone());
            return (ring, KeySpan { len: (seen + 1).min(self.slots), mask: None });
        }
        let kept = seen.min(self.slots);
        let attend = match kept {
            0 => rows.clone(),
            _ => Tensor::cat(vec![in_order(&old, seen, self.slots), rows.clone()], 2),
        };
        self.store = Some(write(old, rows, seen, self.slots));
        let mask = Some(CausalMask { offset: kept, window: self.window });
        (attend, KeySpan { len: kept + new, mask })
    }
}

/// The tokens a ring holds after `seen` tokens, oldest first: `[B, N, min(seen, C), D]`.
fn in_order(ring: &Tensor<4>, seen: usize, slots: usize) -> Tensor<4> {
    let part = |from: usize, to: usize| ring.clone().slice(s![.., .., from..to, ..]);
    match seen % slots {
        _ if seen < slots => part(0, seen),
        0 => ring.clone(),
        oldest => Tensor::cat(vec![part(oldest, slots), part(0, oldest)], 2),
    }
}

/// Writes new tokens, the first at position `seen`, into their slots; of more than fit, the last.
fn write(ring: Tensor<4>, new: Tensor<4>, seen: usize, slots: usize) -> Tensor<4> {
    let count = new.dims()[2];
    let skip = count.saturating_sub(slots);
    let first = (seen + skip) % slots;
    let kept = count - skip;
    let until_end = kept.min(slots - first);
    let part = |from: usize, to: usize| new.clone().slice(s![.., .., from..to, ..]);
    if skip == 0 && until_end == kept {
        return ring.slice_assign(s![.., .., first..first + kept, ..], new);
    }
    let ring =
        ring.slice_assign(s![.., .., first..first + until_end, ..], part(skip, skip + until_end));
    match kept - until_end {
        0 => ring,
        rest => ring.slice_assign(s![.., .., 0..rest, ..], part(skip + until_end, count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(tensor: Tensor<4>) -> Vec<f32> {
        tensor.into_data().try_into_vec::<f32>().unwrap()
    }

    fn tokens(from: usize, to: usize) -> Tensor<4> {
        let values: Vec<f32> = (from..to).map(|p| p as f32).collect();
        Tensor::<1>::from_floats(values.as_slice(), &Device::flex()).reshape([1, 1, to - from, 1])
    }

    /// Every way to feed 11 tokens in chunks leaves the last 4 in the ring and shows each chunk
    /// the tokens in reach, in order.
    #[test]
    fn ring_keeps_the_window_in_any_chunking() {
        let kv = KvSpec {
            heads: 1,
            head_dim: 1,
            value_dim: 0,
            window: Some(4),
            query_heads: 1,
            attended_dim: 1,
            source: None,
            latent: None,
        };
        for mask in 0u32..1 << 10 {
            let mut ring = Ring::new(&kv, 1, 1, 100, &Device::flex());
            let mut seen = 0;
            for end in 1..=11 {
                if end < 11 && mask >> (end - 1) & 1 == 0 {
                    continue;
                }
                let (keys, span) = ring.extend(tokens(seen, end), seen);
                let mut got = positions(keys.slice(s![.., .., 0..span.len, ..]));
                if end - seen == 1 {
                    got.sort_by(f32::total_cmp);
                    assert_eq!(span.mask, None);
                    let want: Vec<f32> = (end.saturating_sub(4)..end).map(|p| p as f32).collect();
                    assert_eq!(got, want);
                } else {
                    let first = seen - seen.min(4);
                    let want: Vec<f32> = (first..end).map(|p| p as f32).collect();
                    assert_eq!(got, want);
                    let offset = seen - first;
                    assert_eq!(span.mask, Some(CausalMask { offset, window: Some(4) }));
                }
                seen = end;
            }
        }
    }
}
