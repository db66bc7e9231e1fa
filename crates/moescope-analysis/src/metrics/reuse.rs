//! How many of its experts a token shares with the one n places before it.

use moescope_trace::Phase;

use crate::data::LayerData;
use crate::metric::{Group, Metric, Need};
use crate::parallel;
use crate::ratio::RatioTable;
use crate::row::{Index, MetricRow};
use crate::runs::phase_runs;
use crate::study::{Scope, Study};

use super::shared::table_rows::table_rows;

/// Rows: layer x lag; layer x phase x lag; layer x domain x lag (powers of two). A pair belongs to the
/// phase of its later token. Interval: bootstrap over sequences.
pub(crate) const REUSE: Metric = Metric {
    name: "reuse",
    title: "Reuse of experts at a distance",
    group: Group::Locality,
    unit: "ratio",
    formula: "mean over pairs of tokens n apart in a sequence of |S_t ∩ S_(t+n)| / k, n from 1 to 64",
    chance: "k/E",
    source: "Temporal locality of MoE routing; Mixtral of Experts, section 5 (arXiv 2401.04088) reports it \
             for n = 1 as repeated assignments",
    needs: &[Need::Ids],
    compute,
};

/// Longest distance: the bits of a word.
const LAGS: usize = 64;

fn compute(study: &Study<'_>) -> Vec<MetricRow> {
    parallel::map(&study.data.layers, |layer| of_layer(study, layer)).concat()
}

fn of_layer(study: &Study<'_>, layer: &LayerData) -> Vec<MetricRow> {
    if layer.top_k == 0 {
        return Vec::new();
    }
    let table = count(study, layer);
    let chance = layer.top_k as f64 / layer.experts as f64;
    let of_scope = |scope: &Scope| {
        table_rows(study, &REUSE, layer, scope, table.ratios(scope, (0.0, 1.0)), |column| {
            let lag = column as u32 + 1;
            // Domains are many, and the curve is smooth.
            let shown = scope.domain.is_none() || lag.is_power_of_two();
            shown.then_some((Index::Lag(lag), chance))
        })
    };
    study.scopes().iter().flat_map(of_scope).collect()
}

/// Shared experts and k times the pairs, by lag.
///
/// Each expert has a word whose bit n-1 says that the token n places back selected it. A token adds
/// the words of its k experts, bit by bit, to 64 counters: all lags at once, whatever E is.
fn count(study: &Study<'_>, layer: &LayerData) -> RatioTable {
    let mut table = RatioTable::new(study.groups.len(), LAGS);
    let mut history = vec![(0u64, NEVER); layer.experts];
    for (index, sequence) in study.data.sequences.iter().enumerate() {
        history.fill((0, NEVER));
        let mut routed = (0u64, NEVER);
        let group = study.groups.of_sequence(index);
        for (phase, run) in phase_runs(study.data, sequence) {
            let (mut shared, mut pairs) = (BitCounts::default(), BitCounts::default());
            for token in run {
                let experts = layer.selected(token);
                if experts.is_empty() {
                    continue;
                }
                let now = (token - sequence.start) as u64;
                pairs.add(advance(&mut routed, now));
                for &expert in experts {
                    shared.add(advance(&mut history[usize::from(expert)], now));
                }
            }
            add(&mut table, group, phase, layer.top_k, &shared, &pairs);
        }
    }
    table
}

const NEVER: u64 = u64::MAX;

/// Moves a word (and the place it is of) to `now`: earlier selections move up, its own joins them.
#[inline]
fn advance((word, last): &mut (u64, u64), now: u64) -> u64 {
    let gap = now.wrapping_sub(*last);
    *word = match gap {
        // The same expert twice in one token.
        0 => return 0,
        1..=64 if *last != NEVER => ((*word << (gap - 1)) << 1) | (1 << (gap - 1)),
        _ => 0,
    };
    *last = now;
    *word
}

fn add(
    table: &mut RatioTable,
    group: usize,
    phase: Phase,
    top_k: usize,
    shared: &BitCounts,
    pairs: &BitCounts,
) {
    for (bit, cell) in table.cell(group, phase).iter_mut().enumerate() {
        cell[0] += shared.of(bit) as f64;
        cell[1] += pairs.of(bit) as f64 * top_k as f64;
    }
}

/// 64 counters, one for each bit of a word, held by binary digit.
struct BitCounts {
    digits: [u64; 40],
}

impl Default for BitCounts {
    fn default() -> Self {
        Self { digits: [0; 40] }
    }
}

impl BitCounts {
    #[inline]
    fn add(&mut self, word: u64) {
        let mut carry = word;
        for digit in &mut self.digits {
            if carry == 0 {
                return;
            }
            (*digit, carry) = (*digit ^ carry, *digit & carry);
        }
    }

    fn of(&self, bit: usize) -> u64 {
        (0..).zip(&self.digits).map(|(place, digit)| ((digit >> bit) & 1) << place).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_remember_64_places() {
        let mut word = (0, NEVER);
        assert_eq!(advance(&mut word, 0), 0);
        assert_eq!(advance(&mut word, 0), 0, "twice in one token");
        assert_eq!(advance(&mut word, 1), 0b1);
        assert_eq!(advance(&mut word, 3), 0b110);
        assert_eq!(advance(&mut word, 67), 1 << 63);
        assert_eq!(advance(&mut word, 132), 0);
        // The first place is no selection that never was.
        assert_eq!(advance(&mut (0, NEVER), 5), 0);
    }

    #[test]
    fn counters_count() {
        let mut counts = BitCounts::default();
        for n in 0..1000u64 {
            counts.add(u64::from(n % 3 == 0) | u64::from(n % 7 == 0) << 63);
        }
        assert_eq!((counts.of(0), counts.of(63), counts.of(5)), (334, 143, 0));
    }
}
