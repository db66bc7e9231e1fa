//! What a comparison found.

use super::Refusal;
use crate::analysis::Matrix;
use crate::row::MetricRow;

/// A run compared with a base.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Index of the base among the runs analysed together.
    pub base: usize,
    /// Index of the other run.
    pub other: usize,
    /// Name of the base.
    pub base_name: String,
    /// Name of the other run.
    pub other_name: String,
    /// Why there are no `utilisation_difference` rows, if there are none.
    pub utilisation: Option<Refusal>,
    /// On how many tokens `routing_overlap`, `same_experts`, `top1_flips` and the log-probabilities rest.
    pub token_wise: TokenWise,
    /// Parts without rows, or without some, and why: `output`, `log-probabilities`, `speed`, `memory`.
    pub missing: Vec<(&'static str, Refusal)>,
    /// The rows, metrics in the order of [`super::COMPARISON_METRICS`]; of each those over all domains and
    /// phases first.
    pub rows: Vec<MetricRow>,
    /// What the ratios of speed and memory are between: rows of the base and of the other run, as an
    /// analysis of each alone has them (`throughput`, `ttft`, `peak_rss_bytes`, ...).
    pub sides: [Vec<MetricRow>; 2],
}

/// Whether tokens could be compared one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenWise {
    /// Tokens compared: those before which both runs read the same tokens.
    Compared {
        /// Number of them.
        tokens: usize,
        /// Tokens of the base that the other run does not have or that come after a difference: what
        /// the runs generated may part ways, and from there on the contexts differ.
        left_out: usize,
    },
    /// Not compared.
    Refused(Refusal),
}

impl Comparison {
    /// Rows of a metric by layer, over all domains and phases.
    pub fn by_layer<'a, 'm>(
        &'a self,
        metric: &'m str,
    ) -> impl Iterator<Item = (u16, &'a MetricRow)> + use<'a, 'm> {
        self.rows
            .iter()
            .filter(move |row| row.metric == metric && row.index.is_none() && is_whole(row))
            .filter_map(|row| Some((row.layer?, row)))
    }

    /// The row of a metric over all layers, domains and phases.
    pub fn overall(&self, metric: &str) -> Option<&MetricRow> {
        self.rows.iter().find(|row| row.metric == metric && row.layer.is_none() && is_whole(row))
    }

    /// Difference of utilisation as layers x experts; `None` where it was refused.
    pub fn difference(&self) -> Option<Matrix> {
        let mut matrix = Matrix { layers: Vec::new(), values: Vec::new() };
        for row in self.rows.iter().filter(|row| row.metric == "utilisation_difference") {
            let layer = row.layer?;
            if matrix.layers.last() != Some(&layer) {
                matrix.layers.push(layer);
                matrix.values.push(Vec::new());
            }
            matrix.values.last_mut()?.push(row.value);
        }
        (!matrix.layers.is_empty()).then_some(matrix)
    }
}

/// Whether a row is about all domains and both phases.
fn is_whole(row: &MetricRow) -> bool {
    row.domain.is_none() && row.phase.is_none()
}
