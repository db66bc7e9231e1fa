//! Building flat vectors from list columns that may be ragged or partly absent.

use std::ops::Range;

use crate::tables::Lists;

/// One chunk of a list column.
pub(crate) struct Chunk<'a, T> {
    /// Positions in `values`; one more than rows.
    pub(crate) offsets: &'a [i64],
    /// Which rows are null; `None` where none is.
    pub(crate) null: Option<Vec<bool>>,
    /// Values of all rows.
    pub(crate) values: &'a [T],
}

impl<T> Chunk<'_, T> {
    pub(crate) fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of null rows.
    pub(crate) fn nulls(&self) -> usize {
        self.null.as_ref().map_or(0, |null| null.iter().filter(|null| **null).count())
    }

    /// Values of a row; `None` if it is null, whatever its offsets say.
    fn row(&self, row: usize) -> Option<&[T]> {
        if self.null.as_ref().is_some_and(|null| null[row]) {
            return None;
        }
        Some(&self.values[self.offsets[row] as usize..self.offsets[row + 1] as usize])
    }

    /// Values of all rows together, and their number per row, where no row is null and all are as long.
    fn uniform(&self) -> Option<(&[T], usize)> {
        if self.null.is_some() || self.rows() == 0 {
            return None;
        }
        let width = self.offsets[1] - self.offsets[0];
        let (first, last) = (self.offsets[0], self.offsets[self.rows()]);
        self.offsets
            .windows(2)
            .all(|pair| pair[1] - pair[0] == width)
            .then(|| (&self.values[first as usize..last as usize], width as usize))
    }
}

/// Lists into one flat vector. While all rows are as long as each other no offsets are kept, which for the
/// experts of a model with one K saves a fifth of the memory.
pub(crate) struct Flat<T> {
    values: Vec<T>,
    lists: Lists,
    rows: usize,
    expected_rows: usize,
}

impl<T: Copy> Flat<T> {
    pub(crate) fn new(expected_rows: usize) -> Self {
        Self { values: Vec::new(), lists: Lists::Fixed(0), rows: 0, expected_rows }
    }

    /// Appends a chunk; a null row becomes an empty one.
    pub(crate) fn push(&mut self, chunk: &Chunk<'_, T>) {
        if let Some((values, width)) = chunk.uniform()
            && (self.rows == 0 || self.lists == Lists::Fixed(width))
        {
            if self.rows == 0 {
                self.lists = Lists::Fixed(width);
                // The number of rows comes from the file: where it cannot be had, the vector just grows.
                let _ = self.values.try_reserve_exact(self.expected_rows.saturating_mul(width));
            }
            self.values.extend_from_slice(values);
            self.rows += chunk.rows();
            return;
        }
        for row in 0..chunk.rows() {
            self.values.extend_from_slice(chunk.row(row).unwrap_or(&[]));
            let end = self.values.len() as u64;
            self.offsets().push(end);
        }
        self.rows += chunk.rows();
    }

    /// Appends rows without values.
    pub(crate) fn push_empty(&mut self, rows: usize) {
        if rows == 0 || (self.rows == 0 || self.lists == Lists::Fixed(0)) {
            self.rows += rows;
            return;
        }
        let end = self.values.len() as u64;
        self.offsets().extend(std::iter::repeat_n(end, rows));
        self.rows += rows;
    }

    /// The offsets, written out for the rows so far if they were not.
    fn offsets(&mut self) -> &mut Vec<u64> {
        if let Lists::Fixed(width) = self.lists {
            let width = width as u64;
            self.lists = Lists::Offsets((0..=self.rows as u64).map(|row| row * width).collect());
        }
        match &mut self.lists {
            Lists::Offsets(offsets) => offsets,
            Lists::Fixed(_) => unreachable!("replaced just above"),
        }
    }

    pub(crate) fn finish(mut self) -> (Vec<T>, Lists) {
        self.values.shrink_to_fit();
        (self.values, self.lists)
    }
}

/// Values of which some may be absent: nothing is held while none was seen, and NaN stands where one is
/// missing among others.
#[derive(Default)]
pub(crate) struct Gaps {
    values: Vec<f32>,
    missing: usize,
    seen: bool,
    /// Values that room is made for when the first turns up: growing by doubling would hold twice as much.
    expected: usize,
}

impl Gaps {
    pub(crate) fn new(expected: usize) -> Self {
        Self { expected, ..Self::default() }
    }

    /// `count` values are absent.
    pub(crate) fn skip(&mut self, count: usize) {
        self.missing += count;
    }

    pub(crate) fn extend(&mut self, values: &[f32]) {
        if !self.seen {
            self.seen = true;
            // The number comes from the file: where it cannot be had, the vector just grows.
            let _ = self.values.try_reserve_exact(self.expected);
        }
        self.fill();
        self.values.extend_from_slice(values);
    }

    fn fill(&mut self) {
        let missing = std::mem::take(&mut self.missing);
        self.values.extend(std::iter::repeat_n(f32::NAN, missing));
    }

    /// `None` where every value is absent.
    pub(crate) fn finish(mut self) -> Option<Vec<f32>> {
        if !self.seen {
            return None;
        }
        self.fill();
        self.values.shrink_to_fit();
        Some(self.values)
    }
}

/// Lists that must be as long as the experts of their row.
#[derive(Default)]
pub(crate) struct Aligned {
    gaps: Gaps,
    expected_rows: usize,
}

impl Aligned {
    pub(crate) fn new(expected_rows: usize) -> Self {
        Self { expected_rows, gaps: Gaps::default() }
    }

    /// Appends a chunk whose first row is `*next`, and moves `next` behind its last.
    pub(crate) fn push(
        &mut self,
        chunk: &Chunk<'_, f32>,
        experts: &Flat<u16>,
        next: &mut usize,
    ) -> Result<(), String> {
        let first = *next;
        *next += chunk.rows();
        if chunk.nulls() == chunk.rows() {
            self.skip(first..*next, experts);
            return Ok(());
        }
        if let Some((values, width)) = chunk.uniform()
            && experts.lists == Lists::Fixed(width)
        {
            self.gaps.expected = self.expected_rows.saturating_mul(width);
            self.gaps.extend(values);
            return Ok(());
        }
        for row in 0..chunk.rows() {
            let expected = experts.lists.range(first + row).len();
            match chunk.row(row) {
                None => self.gaps.skip(expected),
                Some(values) if values.len() == expected => self.gaps.extend(values),
                Some(values) => {
                    return Err(format!(
                        "row {row} of its row group has {} entries, expected {expected} as in `experts`",
                        values.len(),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Rows that have no list.
    pub(crate) fn skip(&mut self, rows: Range<usize>, experts: &Flat<u16>) {
        if !rows.is_empty() {
            let lists = &experts.lists;
            self.gaps.skip(lists.range(rows.end - 1).end - lists.range(rows.start).start);
        }
    }

    pub(crate) fn finish(self) -> Option<Vec<f32>> {
        self.gaps.finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn chunk<'a, T>(offsets: &'a [i64], values: &'a [T]) -> Chunk<'a, T> {
        Chunk { offsets, null: None, values }
    }

    #[test]
    fn one_width_needs_no_offsets() {
        let mut flat = Flat::new(4);
        flat.push(&chunk(&[0, 2, 4], &[1, 2, 3, 4]));
        // A chunk may start in the middle of its values.
        flat.push(&chunk(&[2, 4], &[0, 0, 5, 6]));
        assert_eq!(flat.finish(), (vec![1, 2, 3, 4, 5, 6], Lists::Fixed(2)));
    }

    #[test]
    fn another_width_writes_the_offsets_out() {
        let mut flat = Flat::new(0);
        flat.push(&chunk(&[0, 2, 4], &[1, 2, 3, 4]));
        flat.push(&chunk(&[0, 1], &[5]));
        flat.push_empty(2);
        flat.push(&chunk(&[0, 2], &[6, 7]));
        let (values, lists) = flat.finish();
        assert_eq!(values, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(lists, Lists::Offsets(vec![0, 2, 4, 5, 5, 5, 7]));
        assert_eq!(lists.range(2), 4..5);
        assert_eq!(lists.range(4), 5..5);
    }

    #[test]
    fn null_rows_are_empty_whatever_their_offsets_say() {
        let mut flat = Flat::new(0);
        flat.push_empty(1);
        flat.push(&Chunk {
            offsets: &[0, 2, 4],
            null: Some(vec![true, false]),
            values: &[8, 8, 1, 2],
        });
        assert_eq!(flat.finish(), (vec![1, 2], Lists::Offsets(vec![0, 0, 0, 2])));
    }

    #[test]
    fn gaps_cost_nothing_until_a_value_turns_up() {
        let mut none = Gaps::default();
        none.skip(1_000_000_000_000);
        assert_eq!(none.finish(), None);

        let mut some = Gaps::default();
        some.skip(1);
        some.extend(&[0.5]);
        some.skip(1);
        let values = some.finish().unwrap();
        assert!(values[0].is_nan() && values[1] == 0.5 && values[2].is_nan());
    }

    #[test]
    fn aligned_lists_follow_the_experts() {
        let mut experts = Flat::new(0);
        experts.push(&chunk(&[0, 2, 3], &[1_u16, 2, 3]));
        let mut weights = Aligned::default();
        let mut next = 0;
        let null = Some(vec![true, false]);
        weights
            .push(&Chunk { offsets: &[0, 0, 1], null, values: &[0.5] }, &experts, &mut next)
            .unwrap();
        assert_eq!(next, 2);
        let values = weights.finish().unwrap();
        assert!(values[0].is_nan() && values[1].is_nan() && values[2] == 0.5);

        let error =
            Aligned::default().push(&chunk(&[0, 2, 4], &[0.0; 4]), &experts, &mut 0).unwrap_err();
        assert!(error.contains("row 1") && error.contains("2 entries, expected 1"), "{error}");
    }
}
