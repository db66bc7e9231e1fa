//! Sums of the cells of large tables over resamples, a few rows of the table at a time.

use std::ops::Range;

use crate::study::Study;

/// Counts held at once: 64 MiB.
const MOST_COUNTS: usize = 1 << 24;

/// Cells resampled at once.
const BLOCK: usize = 512;

/// Counts of events (i, j) by group, for some of the i.
pub(super) struct Cells {
    /// The i these are.
    pub(super) first: Range<usize>,
    /// How many j there are.
    columns: usize,
    /// `[G, i, j]`
    counts: Vec<u32>,
}

impl Cells {
    /// Counts an event of a group, where its i is among these.
    #[inline]
    pub(super) fn add(&mut self, group: usize, i: usize, j: usize) {
        if self.first.contains(&i) {
            let row = group * self.first.len() + i - self.first.start;
            self.counts[row * self.columns + j] += 1;
        }
    }
}

/// Calls `each(i, j, events, resampled events [R])` for every cell of a table `[rows, columns]`, i ascending
/// and then j, where `wanted(i, j)`. `count` counts all events of a study for the i of what it is given.
pub(super) fn each_cell(
    study: &Study<'_>,
    [rows, columns]: [usize; 2],
    wanted: impl Fn(usize, usize) -> bool,
    count: impl Fn(&mut Cells),
    mut each: impl FnMut(usize, usize, f64, &[f64]),
) {
    let (groups, resamples) = (study.groups.len(), &study.overall().resamples);
    let at_once = (MOST_COUNTS / (groups * columns).max(1)).clamp(1, rows.max(1));
    let mut resampled = vec![Vec::new(); BLOCK];
    for start in (0..rows).step_by(at_once) {
        let first = start..(start + at_once).min(rows);
        let of_group = first.len() * columns;
        let mut cells = Cells { first: first.clone(), columns, counts: vec![0; groups * of_group] };
        count(&mut cells);
        let places: Vec<(usize, usize)> = first
            .flat_map(|i| (0..columns).map(move |j| (i, j)))
            .filter(|&(i, j)| wanted(i, j))
            .collect();
        for block in places.chunks(BLOCK) {
            // The units of the whole run are its groups.
            let mut sums = vec![0.0; block.len()];
            let mut units = Vec::with_capacity(groups * block.len());
            for counts in cells.counts.chunks_exact(of_group.max(1)) {
                for (sum, (i, j)) in sums.iter_mut().zip(block) {
                    let count = f64::from(counts[(i - start) * columns + j]);
                    *sum += count;
                    units.push(count);
                }
            }
            resampled.iter_mut().for_each(Vec::clear);
            resamples.each_sum(resamples.len(), &units, block.len(), |_, drawn| {
                for (values, sum) in resampled.iter_mut().zip(drawn) {
                    values.push(*sum);
                }
            });
            for ((&(i, j), sum), drawn) in block.iter().zip(sums).zip(&resampled) {
                each(i, j, sum, drawn);
            }
        }
    }
}

/// Sums of each column of `rows` `[G, W]`, `[W]`, and the same in each resample, `[W][R]`.
pub(super) fn column_draws(
    study: &Study<'_>,
    rows: &[f64],
    width: usize,
) -> (Vec<f64>, Vec<Vec<f64>>) {
    let resamples = &study.overall().resamples;
    let mut drawn = vec![Vec::with_capacity(resamples.len()); width];
    resamples.each_sum(resamples.len(), rows, width, |_, sums| {
        for (values, sum) in drawn.iter_mut().zip(sums) {
            values.push(*sum);
        }
    });
    (crate::counts::column_sums(rows, width), drawn)
}
