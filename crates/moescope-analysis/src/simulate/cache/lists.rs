//! Ordered lists from which anything can be taken, and which know what lies behind an entry.

/// Words per group; each group keeps the number of its live entries.
const GROUP: usize = 8;

/// Lists of up to `capacity` entries each: an entry is appended at the end, stays where it is, and
/// can be removed. Entries are bits, so that counting what was appended after one of them takes a
/// few words.
#[derive(Clone, Debug)]
pub(super) struct Lists {
    /// Groups per list.
    groups: usize,
    /// Live entries, `[lists, groups, GROUP]` words.
    words: Vec<u64>,
    /// Live entries by group, `[lists, groups]`.
    live: Vec<u32>,
    /// Entries ever appended, by list.
    ends: Vec<u32>,
}

impl Lists {
    pub(super) fn new(capacity: usize) -> Self {
        let groups = capacity.div_ceil(64 * GROUP).max(1);
        Self { groups, words: Vec::new(), live: Vec::new(), ends: Vec::new() }
    }

    /// Entries a list can take.
    pub(super) fn capacity(&self) -> usize {
        self.groups * GROUP * 64
    }

    /// Number of lists.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Adds an empty list.
    pub(super) fn push(&mut self) {
        self.words.resize(self.words.len() + self.groups * GROUP, 0);
        self.live.resize(self.live.len() + self.groups, 0);
        self.ends.push(0);
    }

    /// Forgets all lists.
    pub(super) fn clear(&mut self) {
        self.words.clear();
        self.live.clear();
        self.ends.clear();
    }

    /// Entries ever appended to a list.
    pub(super) fn end(&self, list: usize) -> usize {
        self.ends[list] as usize
    }

    /// Appends an entry and returns its slot. The list must have room.
    #[inline]
    pub(super) fn append(&mut self, list: usize) -> u32 {
        let slot = self.ends[list];
        self.ends[list] += 1;
        let word = list * self.groups * GROUP + slot as usize / 64;
        self.words[word] |= 1 << (slot % 64);
        self.live[word / GROUP] += 1;
        slot
    }

    /// Removes the entry in a slot.
    #[inline]
    pub(super) fn remove(&mut self, list: usize, slot: u32) {
        let word = list * self.groups * GROUP + slot as usize / 64;
        self.words[word] &= !(1 << (slot % 64));
        self.live[word / GROUP] -= 1;
    }

    /// Entries that were appended after the one in a slot and are still there.
    #[inline]
    pub(super) fn after(&self, list: usize, slot: u32) -> u32 {
        let first = list * self.groups * GROUP;
        let word = first + slot as usize / 64;
        // Two shifts: one by 64 would be an overflow.
        let mut count = (self.words[word] >> (slot % 64) >> 1).count_ones();
        let last = first + (self.ends[list] as usize).div_ceil(64);
        let group = word / GROUP;
        let group_end = ((group + 1) * GROUP).min(last);
        for word in &self.words[word + 1..group_end.max(word + 1)] {
            count += word.count_ones();
        }
        let groups_end = last.div_ceil(GROUP);
        count + self.live[group + 1..groups_end.max(group + 1)].iter().sum::<u32>()
    }

    /// Slots of the entries that are still there, in order.
    pub(super) fn slots(&self, list: usize) -> impl Iterator<Item = u32> + '_ {
        let first = list * self.groups * GROUP;
        let words = &self.words[first..first + self.groups * GROUP];
        (0u32..).zip(words).flat_map(|(at, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                // `rest - 1` clears the lowest bit.
                (rest != 0).then(|| {
                    rest &= rest - 1;
                    at * 64 + bit
                })
            })
        })
    }

    /// Empties a list.
    pub(super) fn reset(&mut self, list: usize) {
        self.words[list * self.groups * GROUP..(list + 1) * self.groups * GROUP].fill(0);
        self.live[list * self.groups..(list + 1) * self.groups].fill(0);
        self.ends[list] = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_behind() {
        let mut lists = Lists::new(2000);
        lists.push();
        lists.push();
        let slots: Vec<u32> = (0..1500).map(|_| lists.append(1)).collect();
        assert_eq!(lists.after(1, slots[0]), 1499);
        for slot in (0..1500).step_by(3) {
            lists.remove(1, slot);
        }
        // 501 to 1499 without the multiples of three.
        assert_eq!(lists.after(1, 500), 666);
        assert_eq!(lists.after(1, 1499), 0);
        assert_eq!(lists.after(1, 63), (64..1500).filter(|slot| slot % 3 != 0).count() as u32);
        let left: Vec<u32> = (0..1500).filter(|slot| slot % 3 != 0).collect();
        assert_eq!(lists.slots(1).collect::<Vec<_>>(), left);
        assert_eq!((lists.end(0), lists.end(1)), (0, 1500));
        lists.reset(1);
        assert_eq!(lists.append(1), 0);
    }
}
