//! The units of the bootstrap: sequences, merged into groups where there are very many.

use crate::data::RunData;

/// Groups above which sequences share one. It bounds the memory of the per-group counts and the
/// time of the bootstrap, so that both stay linear in the trace.
const MAX_GROUPS: usize = 256;

/// Fewest groups that a domain's half keeps when sequences are merged.
const MIN_PER_CELL: usize = 4;

/// Which group each sequence is in. A group holds sequences of one domain and one half.
///
/// Up to 256 sequences each is a group of its own. With more, they are dealt out to about
/// 256 groups; groups of independent sequences are independent too, so resampling groups
/// is as valid as resampling sequences, with a little less resolution.
#[derive(Clone, Debug)]
pub struct Groups {
    of_sequence: Vec<u32>,
    domain: Vec<u16>,
    second_half: Vec<bool>,
}

impl Groups {
    /// Groups of the sequences of a run.
    pub fn new(data: &RunData) -> Self {
        let sequences = &data.sequences;
        // Ordered by domain and then alternating, the halves have the same mix of domains.
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by_key(|&index| sequences[index].domain);
        let cell = |rank: usize| (sequences[order[rank]].domain, rank % 2 == 1);

        let mut sizes = std::collections::BTreeMap::new();
        for rank in 0..order.len() {
            *sizes.entry(cell(rank)).or_insert(0usize) += 1;
        }
        let mut groups =
            Self { of_sequence: vec![0; sequences.len()], domain: vec![], second_half: vec![] };
        // Per cell: first group, number of groups, sequences dealt so far.
        let mut cells = std::collections::BTreeMap::new();
        for (&(domain, second_half), &size) in &sizes {
            let share = MAX_GROUPS * size / sequences.len();
            let count = if sequences.len() <= MAX_GROUPS { size } else { share.max(MIN_PER_CELL) };
            let count = count.min(size);
            cells.insert((domain, second_half), (groups.domain.len(), count, 0));
            groups.domain.extend(std::iter::repeat_n(domain, count));
            groups.second_half.extend(std::iter::repeat_n(second_half, count));
        }
        for (rank, &sequence) in order.iter().enumerate() {
            if let Some((first, count, dealt)) = cells.get_mut(&cell(rank)) {
                groups.of_sequence[sequence] = (*first + *dealt % *count) as u32;
                *dealt += 1;
            }
        }
        groups
    }

    /// Number of groups, G.
    pub fn len(&self) -> usize {
        self.domain.len()
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.domain.is_empty()
    }

    /// The group of a sequence (an index into [`RunData::sequences`]).
    pub fn of_sequence(&self, sequence: usize) -> usize {
        self.of_sequence[sequence] as usize
    }

    /// The domain of a group (an index into [`RunData::domains`]).
    pub fn domain(&self, group: usize) -> u16 {
        self.domain[group]
    }

    /// Whether a group is in the second half: what is chosen on the first is measured on the second.
    pub fn is_second_half(&self, group: usize) -> bool {
        self.second_half[group]
    }
}
