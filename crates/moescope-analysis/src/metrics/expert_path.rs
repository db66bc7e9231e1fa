//! Which expert follows which from one layer to the next.

use super::shared::first_choices::{layers, margins};
use super::shared::table_rows::table_rows;
use crate::metric::{Group, Metric, Need};
use crate::parallel;
use crate::ratio::RatioTable;
use crate::row::{Index, MetricRow};
use crate::study::{Scope, Study};
use crate::transitions::{LayerTransitions, first_choices};

/// Rows: layer x pair (i, j): from expert i of the layer to expert j of the next MoE layer, for the
/// strongest transitions of the layer; layer x phase x pair and layer x domain x pair for the same ones.
/// Interval: bootstrap over the sequences of the measuring half.
pub(crate) const EXPERT_PATH: Metric = Metric {
    name: "expert_path",
    title: "Expert path",
    group: Group::Structure,
    unit: "ratio",
    formula: "P(first choice j in the next MoE layer given first choice i in this one) over one half of the \
              sequences, for the 10 transitions that stand out most in the other half",
    chance: "1/E of the next layer",
    source: "Inter-layer expert affinity (ExFlow, Yao et al. 2024, arXiv 2401.08383)",
    needs: &[Need::Ids, Need::Layers, Need::FewExperts],
    compute: |study| {
        parallel::map(study.transitions(), |transitions| strongest(study, transitions)).concat()
    },
};

/// Transitions reported per layer.
const REPORTED: usize = 10;

fn strongest(study: &Study<'_>, transitions: &LayerTransitions) -> Vec<MetricRow> {
    let (from, to) = layers(study, transitions);
    let chosen = choose(&transitions.halves[0], to.experts);
    let mut place = vec![usize::MAX; from.experts * to.experts];
    for (at, &cell) in chosen.iter().enumerate() {
        place[cell] = at;
    }
    // Which of the chosen transitions leave each expert.
    let mut leaving = vec![Vec::new(); from.experts];
    for (at, &cell) in chosen.iter().enumerate() {
        leaving[cell / to.experts].push(at);
    }
    let mut table = RatioTable::new(study.groups.len(), chosen.len());
    for (index, sequence) in study.data.sequences.iter().enumerate() {
        let group = study.groups.of_sequence(index);
        if !study.groups.is_second_half(group) {
            continue;
        }
        for token in sequence.start..sequence.end {
            let Some((i, j)) = first_choices(from, to, token) else {
                continue;
            };
            let phase = study.data.tokens.phase[token];
            for &at in &leaving[i] {
                let taken = f64::from(u8::from(place[i * to.experts + j] == at));
                table.add(group, phase, at, taken, 1.0);
            }
        }
    }
    let of_scope = |scope: &Scope| {
        table_rows(study, &EXPERT_PATH, from, scope, table.shares(scope), |column| {
            let (i, j) = (chosen[column] / to.experts, chosen[column] % to.experts);
            Some((Index::Pair(i as u16, j as u16), 1.0 / to.experts as f64))
        })
    };
    study.measuring().iter().flat_map(of_scope).collect()
}

/// The cells furthest above what independent layers explain, in standard deviations.
fn choose(counts: &[u32], columns: usize) -> Vec<usize> {
    let (across, down) = margins(counts, columns);
    let total: f64 = across.iter().sum();
    let mut cells: Vec<(f64, usize)> = counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(cell, &count)| {
            let expected = across[cell / columns] * down[cell % columns] / total;
            ((f64::from(count) - expected) / expected.max(1.0).sqrt(), cell)
        })
        .collect();
    cells.sort_by(|a, b| b.0.total_cmp(&a.0));
    cells.truncate(REPORTED);
    cells.into_iter().map(|(_, cell)| cell).collect()
}
