//! The bound: what a cache that knows the future would hit.

use super::ABSENT;
use super::future::{Future, NEVER};

/// What is in a cache before the first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing: the first use of each expert is a miss.
    Empty,
    /// The experts that will be needed first. No cache of that size has more hits, whatever it held
    /// at the start, so this is the bound for preloaded caches too.
    Loaded,
}

/// Keeps the experts that are needed again soonest (L. Belady, "A study of replacement algorithms
/// for virtual-storage computer", 1966).
///
/// The cache of m experts is the m first of a stack. A request takes its experts out of the
/// stack, which leaves holes, and pours them in again from the top: each place keeps the one
/// needed sooner, what it had or what comes from above, and hands the other on, until a hole takes
/// it. Places hold nothing but the number of the next use, which names the expert.
#[derive(Clone, Debug, Default)]
pub struct Belady {
    stack: Vec<u32>,
}

impl Belady {
    /// Works for any number of keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs the requests of which `future` was made; `each` gets the number of a request and the
    /// depths of its keys, ascending.
    pub fn run(&mut self, future: &Future, start: Start, mut each: impl FnMut(usize, &[u32])) {
        self.stack.clear();
        self.stack.resize(future.keys, NEVER);
        let stack = &mut self.stack[..];
        let mut unseen = future.first.iter().peekable();
        if start == Start::Loaded {
            stack[..future.first.len()].copy_from_slice(&future.first);
            unseen = [].iter().peekable();
        }
        let mut depths = Vec::new();
        let mut begin = 0;
        for (at, &end) in future.ends.iter().enumerate() {
            let mut seen = (end - begin) as usize;
            while unseen.next_if(|&&first| first < end).is_some() {
                seen -= 1;
            }
            find(stack, end, seen, &mut depths);
            depths.resize((end - begin) as usize, ABSENT);
            each(at, &depths);
            for (&depth, &next) in depths.iter().zip(&future.next[begin as usize..end as usize]) {
                pour(stack, depth, next);
            }
            begin = end;
        }
    }
}

/// Places of the `count` entries below `end`, ascending. All other entries lie at or behind `end`.
#[inline]
fn find(stack: &[u32], end: u32, count: usize, places: &mut Vec<u32>) {
    /// Looked at together; the comparison of so many is a few instructions.
    const LANES: usize = 16;
    places.clear();
    let mut chunks = (0u32..).step_by(LANES).zip(stack.chunks(LANES));
    while places.len() < count {
        let Some((first, chunk)) = chunks.next() else {
            return;
        };
        let below = chunk.iter().map(|&next| u32::from(next < end)).sum::<u32>();
        if below > 0 {
            places.extend(
                (first..).zip(chunk).filter(|&(_, &next)| next < end).map(|(place, _)| place),
            );
        }
    }
}

/// Pours an entry in from the top, down to the hole at `depth` or as far as there is anything.
#[inline]
fn pour(stack: &mut [u32], depth: u32, entry: u32) {
    let hole = (depth as usize).min(stack.len());
    let mut carried = entry;
    if carried != NEVER {
        for place in &mut stack[..hole] {
            let held = *place;
            *place = held.min(carried);
            carried = held.max(carried);
        }
    }
    if let Some(place) = stack.get_mut(hole) {
        *place = carried;
    }
}
