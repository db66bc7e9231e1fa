//! What the first choice in one layer says about the first choice in the next MoE layer.

use crate::chance::independent_information;
use crate::metric::{Metric, Need};
use crate::parallel;
use crate::ratio::RatioTable;
use crate::row::{Index, MetricRow};
use crate::study::{Scope, Study};
use crate::transitions::{LayerTransitions, first_choices};

use super::table_rows::table_rows;

/// Rows: layer, about it and the next MoE layer; layer x phase; layer x domain. Interval: bootstrap over
/// sequences, first order.
pub(crate) const PATH_INFORMATION: Metric = Metric {
    name: "path_information",
    title: "Information between neighbouring layers",
    unit: "bits",
    formula: "sum_ij p_ij log2(p_ij / (p_i q_j)), p_ij the share of tokens whose first choice is i in the \
              layer and j in the next MoE layer",
    chance: "its expectation for independent layers with the same popularity of experts and T tokens, which \
             tends to 0 as T grows",
    source: "Mutual information (Shannon 1948); its bias is (E-1)² / (2 T ln 2) bits where T is large (Miller \
             1955), and is computed cell by cell so that it holds for small T too",
    needs: &[Need::Ids, Need::Layers],
    compute: |study| {
        let of_layer = |transitions: &LayerTransitions| {
            let of_scope = |scope| information(study, transitions, scope);
            study.scopes().iter().filter_map(of_scope).collect::<Vec<_>>()
        };
        parallel::map(study.transitions(), of_layer).concat()
    },
};

/// Rows: layer x pair (i, j): from expert i of the layer to expert j of the next MoE layer, for the
/// strongest transitions of the layer; layer x phase x pair and layer x domain x pair for the same ones.
/// Interval: bootstrap over the sequences of the measuring half.
pub(crate) const EXPERT_PATH: Metric = Metric {
    name: "expert_path",
    title: "Expert path",
    unit: "ratio",
    formula: "P(first choice j in the next MoE layer given first choice i in this one) over one half of the \
              sequences, for the 10 transitions that stand out most in the other half",
    chance: "1/E of the next layer",
    source: "Inter-layer expert affinity (ExFlow, Yao et al. 2024, arXiv 2401.08383)",
    needs: &[Need::Ids, Need::Layers],
    compute: |study| {
        parallel::map(study.transitions(), |transitions| strongest(study, transitions)).concat()
    },
};

/// Transitions reported per layer.
const REPORTED: usize = 10;

fn information(
    study: &Study<'_>,
    transitions: &LayerTransitions,
    scope: &Scope,
) -> Option<MetricRow> {
    let (from, to) = layers(study, transitions);
    let counts = transitions.of_scope(study, scope);
    let (rows, columns) = margins(&counts, to.experts);
    let total: f64 = rows.iter().sum();
    if total <= 0.0 {
        return None;
    }
    // What a token with each transition brings, in bits.
    let bits: Vec<f64> = counts
        .iter()
        .enumerate()
        .map(|(at, &count)| {
            let independent = rows[at / to.experts] * columns[at % to.experts] / total;
            if count == 0 { 0.0 } else { (f64::from(count) / independent).log2() }
        })
        .collect();
    let value =
        std::iter::zip(&counts, &bits).map(|(&n, bits)| f64::from(n) * bits).sum::<f64>() / total;

    let mut influence = vec![0.0; study.groups.len()];
    for (group, run) in study.stretches(scope) {
        let sum = &mut influence[group];
        for token in run {
            if let Some((i, j)) = first_choices(from, to, token) {
                *sum += (bits[i * to.experts + j] - value) / total;
            }
        }
    }
    let influence = scope.of_units(&influence);
    let most = (from.experts.min(to.experts) as f64).log2();
    Some(MetricRow {
        layer: Some(from.layer),
        value,
        interval: scope.resamples.linear_interval(value, &influence, (0.0, most)),
        chance: Some(independent_information(&rows, &columns) / std::f64::consts::LN_2),
        ..study.row(PATH_INFORMATION.name, PATH_INFORMATION.unit, scope)
    })
}

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

fn layers<'a>(
    study: &Study<'a>,
    transitions: &LayerTransitions,
) -> (&'a crate::LayerData, &'a crate::LayerData) {
    (&study.data.layers[transitions.place], &study.data.layers[transitions.place + 1])
}

/// Row and column sums of counts `[E, E']`.
fn margins(counts: &[u32], columns: usize) -> (Vec<f64>, Vec<f64>) {
    let mut down = vec![0.0; columns];
    let across = counts
        .chunks_exact(columns.max(1))
        .map(|row| {
            for (sum, &count) in down.iter_mut().zip(row) {
                *sum += f64::from(count);
            }
            row.iter().map(|&count| f64::from(count)).sum()
        })
        .collect();
    (across, down)
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
