//! How many different experts a stretch of text needs.

use crate::chance::expected_distinct;
use crate::data::LayerData;
use crate::metric::{Group, Metric, Need};
use crate::parallel;
use crate::ratio::RatioTable;
use crate::row::{Index, MetricRow};
use crate::runs::phase_runs;
use crate::study::{Scope, Study};

use super::shared::table_rows::table_rows;

/// Rows: layer x size; layer x phase x size; layer x domain x size; sizes are powers of two from 2 to
/// 1024. Windows lie end to end from the start of each phase of a sequence; an incomplete last one
/// does not count. Interval: bootstrap over sequences.
pub(crate) const WORKING_SET: Metric = Metric {
    name: "working_set",
    title: "Working set of a window of tokens",
    group: Group::Locality,
    unit: "experts",
    formula: "mean over windows of W successive tokens of the number of distinct experts they select",
    chance: "E (1 - (1 - k/E)^W)",
    source: "Denning 1968, The working set model for program behavior: what a cache must hold to serve W \
             tokens without a miss",
    needs: &[Need::Ids],
    compute,
};

/// Windows of 2^1 to 2^10 tokens.
const LEVELS: usize = 10;

fn compute(study: &Study<'_>) -> Vec<MetricRow> {
    parallel::map(&study.data.layers, |layer| of_layer(study, layer)).concat()
}

fn of_layer(study: &Study<'_>, layer: &LayerData) -> Vec<MetricRow> {
    let table = count(study, layer);
    let bounds = (1.0, layer.experts as f64);
    let of_scope = |scope: &Scope| {
        table_rows(study, &WORKING_SET, layer, scope, table.ratios(scope, bounds), |column| {
            let size = 2u32 << column;
            let chance = expected_distinct(layer.experts, layer.top_k, f64::from(size));
            Some((Index::Size(size), chance))
        })
    };
    study.scopes().iter().flat_map(of_scope).collect()
}

/// Distinct experts and windows, by level.
///
/// All sizes come from one pass. With windows of powers of two, an expert is new in its window of 2^w
/// tokens if the places of this and of its last selection differ in a bit from w up: one number, the
/// highest bit in which they differ, says for which windows it is new.
fn count(study: &Study<'_>, layer: &LayerData) -> RatioTable {
    let mut table = RatioTable::new(study.groups.len(), LEVELS);
    let mut last = vec![NEVER; layer.experts];
    for (index, sequence) in study.data.sequences.iter().enumerate() {
        let group = study.groups.of_sequence(index);
        for (phase, run) in phase_runs(study.data, sequence) {
            last.fill(NEVER);
            // New experts by highest differing bit, and what they came to at the end of the last whole
            // window of each size.
            let mut new = [0u32; LEVELS + 1];
            let mut complete = [0u32; LEVELS];
            let mut place = 0u32;
            for token in run {
                let experts = layer.selected(token);
                if experts.is_empty() {
                    continue;
                }
                for &expert in experts {
                    let last = &mut last[usize::from(expert)];
                    let differing = (*last ^ place).checked_ilog2();
                    *last = place;
                    if let Some(bit) = differing {
                        new[(bit as usize).min(LEVELS)] += 1;
                    }
                }
                place += 1;
                let levels = (place.trailing_zeros() as usize).min(LEVELS);
                for level in 1..=levels {
                    complete[level - 1] = new[level..].iter().sum();
                }
            }
            let cell = table.cell(group, phase);
            for (level, (cell, complete)) in (1..).zip(cell.iter_mut().zip(complete)) {
                cell[0] += f64::from(complete);
                cell[1] += f64::from(place >> level);
            }
        }
    }
    table
}

/// Differs from every place in its highest bit.
const NEVER: u32 = 1 << 31;
