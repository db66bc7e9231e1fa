//! Least frequently used.

use super::lists::Lists;
use super::{ABSENT, Requests};

/// Keeps the experts used most often since the cache was cold, whether they were in it or not; of
/// those used equally often, the ones used last (within a request as in [`super::Lru`]).
///
/// With the rule of this module the cache of m experts is then always the m first of that ranking.
#[derive(Clone, Debug)]
pub struct Lfu {
    /// Uses of each key, `[N]`.
    uses: Vec<u32>,
    /// Slot of each key in the list of its number of uses, `[N]`.
    slot_of: Vec<u32>,
    /// By number of uses: the keys with so many, in the order they reached it.
    levels: Lists,
    /// By number of uses: how many keys have more.
    above: Vec<u32>,
}

impl Lfu {
    /// For keys below `keys`, N.
    pub fn new(keys: usize) -> Self {
        // Each key passes through each level once.
        Self {
            uses: vec![0; keys],
            slot_of: vec![0; keys],
            levels: Lists::new(keys),
            above: Vec::new(),
        }
    }

    /// Runs requests through an empty cache; `each` gets the number of a request and the depths of
    /// its keys, in rank order.
    pub fn run(&mut self, requests: &impl Requests, mut each: impl FnMut(usize, &[u32])) {
        self.uses.fill(0);
        self.levels.clear();
        self.levels.push();
        self.above.clear();
        self.above.push(0);
        let (mut keys, mut depths) = (Vec::new(), Vec::new());
        for at in 0..requests.len() {
            requests.read(at, &mut keys);
            depths.clear();
            depths.extend(keys.iter().map(|&key| match self.uses[key as usize] as usize {
                0 => ABSENT,
                uses => self.above[uses] + self.levels.after(uses, self.slot_of[key as usize]),
            }));
            each(at, &depths);
            for &key in keys.iter().rev() {
                self.count(key as usize);
            }
        }
    }

    fn count(&mut self, key: usize) {
        let uses = self.uses[key] as usize;
        if uses > 0 {
            self.levels.remove(uses, self.slot_of[key]);
        }
        self.above[uses] += 1;
        if uses + 1 == self.levels.len() {
            self.levels.push();
            self.above.push(0);
        }
        self.uses[key] += 1;
        self.slot_of[key] = self.levels.append(uses + 1);
    }
}
