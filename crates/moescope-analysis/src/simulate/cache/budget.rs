//! Belady's cache at a few sizes: for stores of thousands of experts, where the stack of all sizes
//! would be long.

use super::belady::Start;
use super::future::{Future, NEVER};

/// Hits of the caches of `sizes` keys (ascending) that are needed again soonest, `[sizes]`: the same
/// numbers as [`super::Belady`]'s, for all of them from one pass.
///
/// A smaller cache is a part of a larger one, so each size holds a *shell* beyond the size before it.
/// A request takes its keys out of the shells, and pours them in again from the smallest size:
/// each shell that is full hands on the key needed last, what comes or what it had, until a shell has
/// room. Each use knows its shell, so a pass costs a step for every shell above the one a key was
/// found in. That the sizes stay parts of each other: of a cache and what comes into it, the part that
/// has to go is no larger than what comes, and the smaller caches in it hand on nothing but keys needed
/// later than all they keep.
pub fn belady_hits(future: &Future, start: Start, sizes: &[usize]) -> Vec<u64> {
    let uses = future.next.len();
    let mut shells: Vec<Shell> = std::iter::once(&0)
        .chain(sizes)
        .zip(sizes)
        .map(|(inner, size)| Shell::new(uses, size.saturating_sub(*inner)))
        .collect();
    // The shell of the key that each use is of, [uses]; one past the last where none holds it.
    let outside = shells.len();
    let mut shell_of = vec![outside as u16; uses];
    let put = |shells: &mut [Shell], shell_of: &mut [u16], mut next: u32| {
        for (level, shell) in (0u16..).zip(shells) {
            let out = shell.pour(next);
            if out == Some(next) {
                continue;
            }
            shell_of[next as usize] = level;
            match out {
                Some(out) => next = out,
                None => return,
            }
        }
        shell_of[next as usize] = outside as u16;
    };
    if start == Start::Loaded {
        // Ascending, so that nothing is handed on but what no cache has room for.
        for &first in &future.first {
            put(&mut shells, &mut shell_of, first);
        }
    }
    let mut found = vec![0u64; outside + 1];
    let mut begin = 0;
    for &end in &future.ends {
        for now in begin..end {
            let level = usize::from(shell_of[now as usize]);
            found[level] += 1;
            if let Some(shell) = shells.get_mut(level) {
                shell.remove(now);
            }
        }
        for &next in &future.next[begin as usize..end as usize] {
            // What is never needed again makes way at once.
            if next != NEVER {
                put(&mut shells, &mut shell_of, next);
            }
        }
        begin = end;
    }
    let mut sum = 0;
    found[..outside]
        .iter()
        .map(|hits| {
            sum += hits;
            sum
        })
        .collect()
}

/// The keys that a cache holds beyond the next smaller one, as the numbers of their next uses: a set
/// with fast access to the largest.
struct Shell {
    words: Vec<u64>,
    /// Which words are not empty.
    filled: Vec<u64>,
    /// No word of `filled` behind this one has a bit.
    last: usize,
    /// Keys there is still room for.
    room: usize,
}

impl Shell {
    fn new(uses: usize, room: usize) -> Self {
        let words = uses / 64 + 1;
        Self { words: vec![0; words], filled: vec![0; words / 64 + 1], last: 0, room }
    }

    /// Takes a number in and hands on the largest where there is no room: the same one, if it is.
    #[inline]
    fn pour(&mut self, number: u32) -> Option<u32> {
        if self.room > 0 {
            self.room -= 1;
            self.insert(number);
            return None;
        }
        let Some(largest) = self.largest().filter(|largest| *largest > number) else {
            return Some(number);
        };
        self.clear(largest);
        self.insert(number);
        Some(largest)
    }

    /// Takes out a number that is there.
    #[inline]
    fn remove(&mut self, number: u32) {
        self.clear(number);
        self.room += 1;
    }

    #[inline]
    fn insert(&mut self, number: u32) {
        let word = number as usize / 64;
        self.words[word] |= 1 << (number % 64);
        self.filled[word / 64] |= 1 << (word % 64);
        self.last = self.last.max(word / 64);
    }

    #[inline]
    fn clear(&mut self, number: u32) {
        let word = number as usize / 64;
        let bits = &mut self.words[word];
        *bits &= !(1 << (number % 64));
        if *bits == 0 {
            self.filled[word / 64] &= !(1 << (word % 64));
        }
    }

    /// The largest number; `None` of an empty set.
    #[inline]
    fn largest(&mut self) -> Option<u32> {
        while self.filled[self.last] == 0 {
            self.last = self.last.checked_sub(1)?;
        }
        let word = self.last * 64 + self.filled[self.last].ilog2() as usize;
        Some(word as u32 * 64 + self.words[word].ilog2())
    }
}
