//! Least recently used.

use super::lists::Lists;
use super::{ABSENT, Requests};

/// Keeps the experts used last. Of one request, the one the router ranked higher counts as used
/// later, so a cache smaller than k keeps the experts with the largest weights.
#[derive(Clone, Debug)]
pub struct Lru {
    /// All keys in the order of their last use, in one list.
    order: Lists,
    /// Slot of each key, `[N]`; [`ABSENT`] before its first use.
    slot_of: Vec<u32>,
    /// Key in each slot.
    key_in: Vec<u32>,
}

impl Lru {
    /// For keys below `keys`, N.
    pub fn new(keys: usize) -> Self {
        // The more room, the less often the list is packed again.
        let order = Lists::new(4 * keys.max(1));
        let key_in = vec![0; order.capacity()];
        Self { order, slot_of: vec![ABSENT; keys], key_in }
    }

    /// Runs requests through an empty cache; `each` gets the number of a request and the depths of
    /// its keys, in rank order.
    pub fn run(&mut self, requests: &impl Requests, mut each: impl FnMut(usize, &[u32])) {
        self.order.clear();
        self.order.push();
        self.slot_of.fill(ABSENT);
        let (mut keys, mut depths) = (Vec::new(), Vec::new());
        for at in 0..requests.len() {
            requests.read(at, &mut keys);
            depths.clear();
            depths.extend(keys.iter().map(|&key| match self.slot_of[key as usize] {
                ABSENT => ABSENT,
                slot => self.order.after(0, slot),
            }));
            each(at, &depths);
            if self.order.end(0) + keys.len() > self.order.capacity() {
                self.pack();
            }
            for &key in keys.iter().rev() {
                let slot = &mut self.slot_of[key as usize];
                if *slot != ABSENT {
                    self.order.remove(0, *slot);
                }
                *slot = self.order.append(0);
                self.key_in[*slot as usize] = key;
            }
        }
    }

    /// Moves all entries to the front of the list.
    fn pack(&mut self) {
        let keys: Vec<u32> = self.order.slots(0).map(|slot| self.key_in[slot as usize]).collect();
        self.order.reset(0);
        for key in keys {
            let slot = self.order.append(0);
            self.slot_of[key as usize] = slot;
            self.key_in[slot as usize] = key;
        }
    }
}
