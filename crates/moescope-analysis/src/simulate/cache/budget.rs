//! Belady's cache of one size: for stores of thousands of experts, where the stack of all sizes
//! would be long.

use super::belady::Start;
use super::future::{Future, NEVER};

/// Hits of the cache of `size` keys that are needed again soonest, added to `hits` by request: `each`
/// gets the number of a request and its hits. The same numbers as [`super::Belady`]'s at that size.
pub fn belady_hits(future: &Future, start: Start, size: usize, mut each: impl FnMut(usize, u32)) {
    let mut held = Uses::new(future.next.len());
    let mut count = 0;
    if start == Start::Loaded {
        for &first in future.first.iter().take(size) {
            held.insert(first);
            count += 1;
        }
    }
    let mut begin = 0;
    for (at, &end) in future.ends.iter().enumerate() {
        let mut hits = 0;
        for now in begin..end {
            hits += u32::from(held.remove(now));
        }
        each(at, hits);
        count -= hits as usize;
        for &next in &future.next[begin as usize..end as usize] {
            // What is never needed again makes way at once.
            if next != NEVER {
                held.insert(next);
                count += 1;
            }
        }
        while count > size {
            held.remove_last();
            count -= 1;
        }
        begin = end;
    }
}

/// A set of numbers of uses, with fast access to the largest.
struct Uses {
    words: Vec<u64>,
    /// Which words are not empty.
    filled: Vec<u64>,
    /// No word of `filled` behind this one has a bit.
    last: usize,
}

impl Uses {
    fn new(uses: usize) -> Self {
        let words = uses / 64 + 1;
        Self { words: vec![0; words], filled: vec![0; words / 64 + 1], last: 0 }
    }

    #[inline]
    fn insert(&mut self, number: u32) {
        let word = number as usize / 64;
        self.words[word] |= 1 << (number % 64);
        self.filled[word / 64] |= 1 << (word % 64);
        self.last = self.last.max(word / 64);
    }

    /// Whether the number was there.
    #[inline]
    fn remove(&mut self, number: u32) -> bool {
        let word = number as usize / 64;
        let bit = 1 << (number % 64);
        let found = self.words[word] & bit != 0;
        self.words[word] &= !bit;
        if found && self.words[word] == 0 {
            self.filled[word / 64] &= !(1 << (word % 64));
        }
        found
    }

    /// Removes the largest number; nothing in an empty set.
    #[inline]
    fn remove_last(&mut self) {
        while self.filled[self.last] == 0 {
            if self.last == 0 {
                return;
            }
            self.last -= 1;
        }
        let word = self.last * 64 + self.filled[self.last].ilog2() as usize;
        let bits = &mut self.words[word];
        *bits &= !(1 << bits.ilog2());
        if *bits == 0 {
            self.filled[word / 64] &= !(1 << (word % 64));
        }
    }
}
