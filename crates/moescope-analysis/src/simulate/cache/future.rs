//! When each expert is needed next.

use super::Requests;

/// Never needed again.
pub(super) const NEVER: u32 = u32::MAX;

/// Every use of a stream of requests, numbered through in order: use u of a key knows the number
/// of the key's next use.
#[derive(Clone, Debug, Default)]
pub struct Future {
    /// Number of the next use of the same key, by use; [`NEVER`] for the last.
    pub(super) next: Vec<u32>,
    /// One past the last use of each request.
    pub(super) ends: Vec<u32>,
    /// First uses of the keys, ascending.
    pub(super) first: Vec<u32>,
    /// Number of keys, N.
    pub(super) keys: usize,
}

impl Future {
    /// Looks ahead through requests: up to 2^32 - 2 uses.
    pub fn of(requests: &impl Requests) -> Self {
        let mut future = Self { keys: requests.keys(), ..Self::default() };
        let mut keys = Vec::new();
        // Forwards: each use tells the one before it.
        let mut last = vec![NEVER; requests.keys()];
        for at in 0..requests.len() {
            requests.read(at, &mut keys);
            for &key in &keys {
                let now = future.next.len() as u32;
                match std::mem::replace(&mut last[key as usize], now) {
                    NEVER => future.first.push(now),
                    before => future.next[before as usize] = now,
                }
                future.next.push(NEVER);
            }
            future.ends.push(future.next.len() as u32);
        }
        future
    }

    /// Uses in all.
    pub fn uses(&self) -> usize {
        self.next.len()
    }
}
