//! How many different experts a batch of sequences needs at once.

use std::ops::Range;

use moescope_trace::Phase;

use crate::chance::expected_distinct;
use crate::data::LayerData;
use crate::metric::{Group, Metric, Need};
use crate::parallel;
use crate::ratio::RatioTable;
use crate::rng::Rng;
use crate::row::{Index, MetricRow};
use crate::runs::phase_runs;
use crate::study::{Scope, Study};

/// Rows: layer x size, or layer x phase x size if the run has both phases; sizes are powers of two
/// from 2 to 64. The n-th tokens of a phase of B sequences are one batch, and sequences of unlike length
/// begin anew or are cut, so that a size does not see earlier places than another. Interval: bootstrap over
/// batches of sequences.
pub(crate) const BATCH_WORKING_SET: Metric = Metric {
    name: "batch_working_set",
    title: "Working set of a batch",
    group: Group::Locality,
    unit: "experts",
    formula: "mean number of distinct experts that one token each of B different sequences select; \
              sequences are put together at random, and of those drawn together, up to 64, a shorter one \
              begins anew and a longer one is cut at their mean length",
    chance: "E (1 - (1 - k/E)^B)",
    source: "What one decode pass over a batch reads; simulated, so that it does not need a batched run",
    needs: &[Need::Ids],
    compute,
};

/// Batches of 2^1 to 2^6 sequences.
const LEVELS: usize = 6;

/// Sequences of the largest batch.
const LARGEST: usize = 1 << LEVELS;

/// Units of the bootstrap for each size, beyond which batches share one.
const MAX_UNITS: usize = 256;

fn compute(study: &Study<'_>) -> Vec<MetricRow> {
    let phases: Vec<(Phase, &Scope)> =
        study.phases().filter_map(|scope| Some((scope.phase?, scope))).collect();
    let scopes: Vec<(Phase, &Scope)> = if phases.is_empty() {
        let first = study.data.tokens.phase.first().copied();
        first.map(|phase| (phase, study.overall())).into_iter().collect()
    } else {
        phases
    };
    let streams: Vec<Streams> =
        scopes.iter().map(|&(phase, _)| Streams::new(study, phase)).collect();
    parallel::map(&study.data.layers, |layer| {
        let mut rows = Vec::new();
        for ((_, scope), streams) in scopes.iter().zip(&streams) {
            rows.extend(of_phase(study, layer, scope, streams));
        }
        rows
    })
    .concat()
}

fn of_phase(
    study: &Study<'_>,
    layer: &LayerData,
    scope: &Scope,
    streams: &Streams,
) -> Vec<MetricRow> {
    let tables = streams.count(layer);
    let mut rows = Vec::new();
    let row = study.row(BATCH_WORKING_SET.name, BATCH_WORKING_SET.unit, scope);
    for (level, table) in (1u32..).zip(&tables) {
        let size = 1u32 << level;
        let units = streams.units(level as usize);
        let scope = Scope {
            domain: None,
            phase: None,
            units: (0..units as u32).collect(),
            resamples: scope.resamples.with_units(units).into(),
        };
        let bounds = (1.0, layer.experts as f64);
        if let Some((value, interval)) = table.ratios(&scope, bounds).pop().flatten() {
            rows.push(MetricRow {
                layer: Some(layer.layer),
                index: Some(Index::Size(size)),
                value,
                interval,
                chance: Some(expected_distinct(layer.experts, layer.top_k, f64::from(size))),
                ..row.clone()
            });
        }
    }
    rows
}

/// The tokens of one phase of each sequence, in a random order of the sequences.
struct Streams(Vec<Range<usize>>);

impl Streams {
    fn new(study: &Study<'_>, phase: Phase) -> Self {
        let mut streams: Vec<Range<usize>> = study
            .data
            .sequences
            .iter()
            .filter_map(|sequence| phase_runs(study.data, sequence).find(|run| run.0 == phase))
            .map(|run| run.1)
            .collect();
        // Sequences next to each other are often of one domain; a server's batch is not.
        let mut rng = Rng::new(study.options.seed ^ 0xBA7C_4ED5);
        for at in (1..streams.len()).rev() {
            streams.swap(at, rng.below(at + 1));
        }
        Self(streams)
    }

    /// Units of the bootstrap for batches of 2^level.
    fn units(&self, level: usize) -> usize {
        (self.0.len() >> level).min(MAX_UNITS)
    }

    /// Distinct experts and batches, for each level by unit. As in `working_set`, the highest bit in
    /// which a sequence differs from the last one that selected the expert tells for which batch sizes
    /// the expert is new.
    fn count(&self, layer: &LayerData) -> Vec<RatioTable> {
        let mut tables: Vec<RatioTable> =
            (1..=LEVELS).map(|level| RatioTable::new(self.units(level), 1)).collect();
        // Of each expert the round (a place in one chunk of sequences) and the sequence that selected
        // it last.
        let mut last = vec![(u32::MAX, 0u32); layer.experts];
        let mut round = 0;
        for (chunk, streams) in self.0.chunks(LARGEST).enumerate() {
            // As many places as sequences have tokens on average: a shorter one begins anew and a longer
            // one is cut, so that every size sees the same tokens.
            let places = streams.iter().map(Range::len).sum::<usize>() / streams.len();
            // New experts by sequence and by the largest batch they are new in.
            let mut new = [[0u32; LEVELS + 1]; LARGEST];
            for place in 0..places {
                for (at, stream) in streams.iter().enumerate() {
                    for &expert in layer.selected(stream.start + place % stream.len()) {
                        let last = &mut last[usize::from(expert)];
                        let level = if last.0 == round {
                            (last.1 ^ at as u32).checked_ilog2().unwrap_or(0) as usize
                        } else {
                            LEVELS
                        };
                        *last = (round, at as u32);
                        new[at][level] += 1;
                    }
                }
                round += 1;
            }
            for (level, table) in (1..).zip(&mut tables) {
                let units = self.units(level);
                // A block that lacks sequences is left out.
                for block in 0..streams.len() >> level {
                    let members = &new[block << level..(block + 1) << level];
                    let distinct: u32 = members.iter().flat_map(|new| &new[level..]).sum();
                    let unit = ((chunk << (LEVELS - level)) + block) % units;
                    table.add(unit, Phase::Prefill, 0, f64::from(distinct), places as f64);
                }
            }
        }
        tables
    }
}
