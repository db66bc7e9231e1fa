//! Belady's cache at some sizes: for stores of thousands of experts, where the stack of all sizes would be
//! long.

use super::belady::Start;
use super::future::{Future, NEVER};
use crate::simd::{self, Kernel};

/// Hits of the caches of `sizes` keys (ascending, fewer than 2^16 of them) that are needed again soonest,
/// `[sizes]`: the same numbers as [`super::Belady`]'s, for all of them from one pass.
///
/// A smaller cache is a part of a larger one, so each size holds a *shell* beyond the size before it.
/// A request takes its keys out of the shells, and pours them in again from the smallest size:
/// each shell that is full hands on the key needed last, what comes or what it had, until a shell has
/// room. Each use knows its shell. What is handed on is needed later from shell to shell, so few of the
/// shells on the way have anything that is needed later still: a pass costs a look at the number that each
/// shell would hand on, and a step for those few. That the sizes stay parts of each other: of a cache and
/// what comes into it, the part that has to go is no larger than what comes, and the smaller caches in it
/// hand on nothing but keys needed later than all they keep.
pub fn belady_hits(future: &Future, start: Start, sizes: &[usize]) -> Vec<u64> {
    let mut found = vec![0u64; sizes.len() + 1];
    simd::run(Pass { future, start, shells: Shells::new(sizes), found: &mut found });
    let mut sum = 0;
    found[..sizes.len()]
        .iter()
        .map(|hits| {
            sum += hits;
            sum
        })
        .collect()
}

/// One pass over all uses.
struct Pass<'a> {
    future: &'a Future,
    start: Start,
    shells: Shells,
    /// Uses by the shell their key was found in, `[sizes + 1]`; the last are those that none held.
    found: &'a mut [u64],
}

impl Kernel for Pass<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { future, start, mut shells, found } = self;
        // The shell of the key that each use is of, [uses]; one past the last where none holds it.
        let outside = found.len() - 1;
        let mut shell_of = vec![outside as u16; future.next.len()];
        if start == Start::Loaded {
            // Ascending, so that nothing is handed on but what no cache has room for.
            for &first in &future.first {
                shells.pour(first, &mut shell_of);
            }
        }
        let mut begin = 0;
        for &end in &future.ends {
            for now in begin..end {
                let level = usize::from(shell_of[now as usize]);
                found[level] += 1;
                if level < outside {
                    shells.remove(level, now);
                }
            }
            for &next in &future.next[begin as usize..end as usize] {
                // What is never needed again makes way at once.
                if next != NEVER {
                    shells.pour(next, &mut shell_of);
                }
            }
            begin = end;
        }
    }
}

/// The keys that each cache holds beyond the next smaller one, as the numbers of their next uses.
struct Shells {
    /// Where each shell begins in `held`, `[sizes + 1]`.
    begins: Vec<usize>,
    /// Keys of all shells; of each the first `filled`, in any order.
    held: Vec<u32>,
    filled: Vec<usize>,
    /// The key needed last in each shell that is full, and [`NEVER`] in one with room: what comes stays in
    /// the first shell that has a larger number here.
    last: Vec<u32>,
}

impl Shells {
    fn new(sizes: &[usize]) -> Self {
        let begins: Vec<usize> = std::iter::once(0)
            .chain(sizes.iter().scan(0, |inner, size| {
                *inner = (*inner).max(*size);
                Some(*inner)
            }))
            .collect();
        let last = begins.windows(2).map(|ends| if ends[0] < ends[1] { NEVER } else { 0 });
        Self {
            held: vec![0; begins.last().copied().unwrap_or(0)],
            filled: vec![0; sizes.len()],
            last: last.collect(),
            begins,
        }
    }

    /// Takes a key in, and hands keys on from shell to shell.
    #[inline(always)]
    fn pour(&mut self, key: u32, shell_of: &mut [u16]) {
        let mut carried = key;
        let mut level = 0;
        loop {
            level += first_above(&self.last[level..], carried);
            shell_of[carried as usize] = level as u16;
            let Some(&out) = self.last.get(level) else {
                return;
            };
            let shell = &mut self.held[self.begins[level]..self.begins[level + 1]];
            if out == NEVER {
                let filled = &mut self.filled[level];
                shell[*filled] = carried;
                *filled += 1;
                if *filled == shell.len() {
                    self.last[level] = shell.iter().fold(0, |last, &held| last.max(held));
                }
                return;
            }
            let mut last = 0;
            for held in shell {
                let kept = if *held == out { carried } else { *held };
                *held = kept;
                last = last.max(kept);
            }
            self.last[level] = last;
            carried = out;
            level += 1;
        }
    }

    /// Takes out a key that is there.
    #[inline(always)]
    fn remove(&mut self, level: usize, key: u32) {
        let filled = &mut self.filled[level];
        let shell = &mut self.held[self.begins[level]..][..*filled];
        let end = shell[*filled - 1];
        // It is there once: it makes way for the last one.
        for held in shell {
            *held = if *held == key { end } else { *held };
        }
        *filled -= 1;
        self.last[level] = NEVER;
    }
}

/// Place of the first number above `least`; the length where there is none.
#[inline(always)]
fn first_above(numbers: &[u32], least: u32) -> usize {
    /// Looked at together; the comparison of so many is a few instructions.
    const LANES: usize = 16;
    let mut first = 0;
    for chunk in numbers.chunks(LANES) {
        let above = chunk.iter().map(|&number| u32::from(number > least)).sum::<u32>();
        if above > 0 {
            let within = chunk.iter().position(|&number| number > least);
            return first + within.unwrap_or(0);
        }
        first += chunk.len();
    }
    first
}
