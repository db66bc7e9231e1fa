//! Streams of requests: the experts of one layer, or of all layers with one number each.

use crate::data::LayerData;

/// A sequence of requests, each a set of keys. A key is an expert of a layer, or a (layer, expert).
pub trait Requests: Sync {
    /// Number of keys, N; all keys are below it.
    fn keys(&self) -> usize;

    /// Number of requests.
    fn len(&self) -> usize;

    /// Whether there is no request.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Replaces `keys` by those of request `at`, in rank order. An expert named twice counts once,
    /// and empty places ([`crate::NO_EXPERT`]) not at all.
    fn read(&self, at: usize, keys: &mut Vec<u32>);
}

/// The tokens of one layer.
#[derive(Clone, Copy, Debug)]
pub struct LayerRequests<'a> {
    ids: &'a [u16],
    top_k: usize,
    experts: usize,
}

impl<'a> LayerRequests<'a> {
    /// Requests of `ids` `[T, k]`, in rank order; ids of `experts` and above are empty places.
    pub fn new(ids: &'a [u16], top_k: usize, experts: usize) -> Self {
        Self { ids, top_k, experts }
    }

    /// The tokens `tokens` of a layer.
    pub fn of(layer: &'a LayerData, tokens: std::ops::Range<usize>) -> Self {
        let ids = &layer.ids[tokens.start * layer.top_k..tokens.end * layer.top_k];
        Self::new(ids, layer.top_k, layer.experts)
    }
}

impl Requests for LayerRequests<'_> {
    fn keys(&self) -> usize {
        self.experts
    }

    fn len(&self) -> usize {
        self.ids.len().checked_div(self.top_k).unwrap_or(0)
    }

    #[inline]
    fn read(&self, at: usize, keys: &mut Vec<u32>) {
        keys.clear();
        push(&self.ids[at * self.top_k..(at + 1) * self.top_k], self.experts, 0, keys);
    }
}

/// All layers as one stream: token by token, and of each token layer by layer, as a decoding model
/// asks for them. Keys of layer l follow those of the layers before it.
#[derive(Clone, Debug)]
pub struct ModelRequests<'a> {
    layers: Vec<(LayerRequests<'a>, u32)>,
    keys: usize,
}

impl<'a> ModelRequests<'a> {
    /// The tokens `tokens` of all layers.
    pub fn of(layers: &'a [LayerData], tokens: std::ops::Range<usize>) -> Self {
        let mut keys = 0;
        let layers = layers
            .iter()
            .map(|layer| {
                let first = keys as u32;
                keys += layer.experts;
                (LayerRequests::of(layer, tokens.clone()), first)
            })
            .collect();
        Self { layers, keys }
    }
}

impl Requests for ModelRequests<'_> {
    fn keys(&self) -> usize {
        self.keys
    }

    fn len(&self) -> usize {
        self.layers.iter().map(|(layer, _)| layer.len()).min().unwrap_or(0) * self.layers.len()
    }

    #[inline]
    fn read(&self, at: usize, keys: &mut Vec<u32>) {
        let (token, place) = (at / self.layers.len(), at % self.layers.len());
        let (layer, first) = &self.layers[place];
        keys.clear();
        let ids = &layer.ids[token * layer.top_k..(token + 1) * layer.top_k];
        push(ids, layer.experts, *first, keys);
    }
}

#[inline]
fn push(ids: &[u16], experts: usize, first: u32, keys: &mut Vec<u32>) {
    // Which of 64 classes of ids were seen: most ids are alone in theirs and need no search.
    let mut seen = 0u64;
    for &id in ids {
        let (key, class) = (first + u32::from(id), 1 << (id % 64));
        if usize::from(id) < experts && (seen & class == 0 || !keys.contains(&key)) {
            keys.push(key);
        }
        seen |= class;
    }
}
