//! What figures and pages read: the analyses, indexed, with names safe to show.
//!
//! This is the only file that knows the shape of `moescope_analysis::Analysis` and `Comparison`.

use std::collections::BTreeMap;

use moescope_analysis::{
    Analysis, Coactivation, Comparison, Excerpt, Index, Matrix, MetricRow, Pruning, Specialists,
    StepSeries, Transitions,
};
use moescope_trace::Phase;
use moescope_trace::bench::Configuration;
use moescope_trace::manifest::{Manifest, MoeLayer};

use crate::bench::Bench;
use crate::canvas::fit_middle;
use crate::sanitize::{sanitize, short};

/// Longest run or domain name in tables and legends; the conditions hold the whole name.
const NAME_LENGTH: usize = 48;

/// All runs of a report.
pub(crate) struct Data<'a> {
    pub(crate) runs: Vec<Run<'a>>,
    pub(crate) comparisons: &'a [Comparison],
    /// Results of `moescope bench` beside the runs.
    pub(crate) benches: Vec<Bench<'a>>,
}

/// One run.
pub(crate) struct Run<'a> {
    /// Name for tables and legends: one line, sanitised, distinct within the report.
    pub(crate) name: String,
    /// What a reader must know wherever the run's numbers stand: `partial run`, `random weights`, ...
    pub(crate) tags: Vec<&'static str>,
    pub(crate) manifest: &'a Manifest,
    pub(crate) partial: bool,
    /// Sequences with at least one recorded token.
    pub(crate) sequences: u64,
    pub(crate) tokens: u64,
    pub(crate) prefill_tokens: u64,
    pub(crate) decode_tokens: u64,
    /// Domain names as in the rows, and as shown.
    pub(crate) domains: Vec<(String, String)>,
    pub(crate) steps: &'a StepSeries,
    analysis: &'a Analysis,
    rows: BTreeMap<(&'static str, Option<u16>), Vec<&'a MetricRow>>,
}

/// A value per layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerValue {
    pub(crate) layer: u16,
    pub(crate) value: f64,
    pub(crate) interval: Option<(f64, f64)>,
    pub(crate) chance: Option<f64>,
}

/// A value at a size, window or lag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) x: u32,
    pub(crate) value: f64,
    /// 95 % interval, or the range over layers.
    pub(crate) range: Option<(f64, f64)>,
    pub(crate) chance: Option<f64>,
}

/// The size or lag that a row is about.
fn size_of(row: &MetricRow) -> Option<u32> {
    match row.index? {
        Index::Size(size) | Index::Lag(size) => Some(size),
        _ => None,
    }
}

/// A table of numbers; NaN where there is none.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    /// Names of the rows.
    pub(crate) rows: Vec<String>,
    pub(crate) columns: usize,
    /// Row by row.
    pub(crate) values: Vec<f64>,
}

impl Grid {
    pub(crate) fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }
}

impl From<Matrix> for Grid {
    /// Layers with fewer experts than others end in NaN.
    fn from(matrix: Matrix) -> Self {
        let columns = matrix.values.iter().map(Vec::len).max().unwrap_or(0);
        let pad = |line: Vec<f64>| {
            line.into_iter().chain(std::iter::repeat(f64::NAN)).take(columns).collect::<Vec<_>>()
        };
        Self {
            rows: matrix.layers.iter().map(u16::to_string).collect(),
            columns,
            values: matrix.values.into_iter().flat_map(pad).collect(),
        }
    }
}

impl<'a> Data<'a> {
    pub(crate) fn new(analyses: &'a [Analysis], comparisons: &'a [Comparison]) -> Self {
        let mut runs: Vec<Run<'a>> = Vec::with_capacity(analyses.len());
        for analysis in analyses {
            let base = short(&analysis.name, NAME_LENGTH);
            let mut name = base.clone();
            let mut number = 2;
            while runs.iter().any(|run| run.name == name) {
                name = format!("{base} ({number})");
                number += 1;
            }
            runs.push(Run::new(name, analysis));
        }
        Self { runs, comparisons, benches: Vec::new() }
    }

    /// The workload of a configuration, as the end of its name; nothing where all are the same.
    pub(crate) fn workload(&self, configuration: &Configuration) -> String {
        let mut all = self.benches.iter().flat_map(|bench| &bench.rows);
        match all.all(|row| row.configuration().workload == configuration.workload) {
            true => String::new(),
            false => format!(", {}", short(&configuration.workload, 24)),
        }
    }

    /// What the names of many runs all begin with, up to the end of a word; empty where they are few or
    /// have little in common.
    pub(crate) fn common_beginning(&self) -> &str {
        const FEW: usize = 4;
        const LITTLE: usize = 8;
        let Some(first) = self.runs.first().filter(|_| self.runs.len() > FEW) else { return "" };
        let shared = |other: &Run<'_>| {
            let same = first.name.char_indices().zip(other.name.chars());
            same.take_while(|((_, a), b)| a == b).map(|((at, a), _)| at + a.len_utf8()).last()
        };
        let end = self.runs.iter().map(|run| shared(run).unwrap_or(0)).min().unwrap_or(0);
        let common = &first.name[..end];
        // What stands in brackets stays together: `(seed 1)`.
        let end = common.find(" (").or_else(|| common.rfind(' ')).map_or(0, |at| at + 1);
        if end < LITTLE { "" } else { &common[..end] }
    }

    /// Whether any run has a row of a metric.
    pub(crate) fn has(&self, metric: &str) -> bool {
        self.runs.iter().any(|run| run.has(metric))
    }

    /// Devices (with drivers) the runs were made on, distinct, in order.
    pub(crate) fn devices(&self) -> Vec<String> {
        let mut devices = Vec::new();
        for run in &self.runs {
            let device = run.device();
            if !devices.contains(&device) {
                devices.push(device);
            }
        }
        devices
    }

    /// All layers any run has, ascending.
    pub(crate) fn layers(&self) -> Vec<u16> {
        let mut layers: Vec<u16> =
            self.runs.iter().flat_map(|run| run.layers().iter().map(|l| l.layer)).collect();
        layers.sort_unstable();
        layers.dedup();
        layers
    }

    /// `Ok` when a run has MoE layers and the metric; else why there is nothing to show.
    pub(crate) fn needs_routing(&self, metric: &str) -> Result<(), String> {
        if self.runs.iter().all(|run| run.layers().is_empty()) {
            let model = match self.runs.len() {
                1 => "the model has",
                _ => "the models have",
            };
            return Err(format!("{model} no MoE layers, so nothing is routed"));
        }
        if self.has(metric) { Ok(()) } else { Err("not recorded".into()) }
    }
}

impl<'a> Run<'a> {
    fn new(name: String, analysis: &'a Analysis) -> Self {
        let manifest = &analysis.manifest;
        let mut rows: BTreeMap<_, Vec<&'a MetricRow>> = BTreeMap::new();
        for row in &analysis.rows {
            rows.entry((row.metric, row.layer)).or_default().push(row);
        }
        let domains = analysis
            .domains
            .iter()
            .map(|domain| (domain.clone(), short(domain, NAME_LENGTH)))
            .collect();
        Self {
            name,
            tags: analysis.labels(),
            manifest,
            partial: analysis.partial,
            sequences: analysis.sequences as u64,
            tokens: analysis.tokens as u64,
            prefill_tokens: analysis.prefill_tokens as u64,
            decode_tokens: analysis.decode_tokens as u64,
            domains,
            steps: &analysis.steps,
            analysis,
            rows,
        }
    }

    /// The name with its tags: `tiny [partial run, random weights]`.
    pub(crate) fn tagged(&self) -> String {
        if self.tags.is_empty() {
            return self.name.clone();
        }
        format!("{} [{}]", self.name, self.tags.join(", "))
    }

    /// The tagged name in a width as `measure` says: the name is cut, the tags are kept (shortened
    /// where they must be), since a number must not stand without them.
    pub(crate) fn fitted(&self, width: f64, measure: impl Fn(&str) -> f64) -> String {
        let whole = self.tagged();
        if measure(&whole) <= width || self.tags.is_empty() {
            return fit_middle(&whole, width, measure);
        }
        let tags = format!(" [{}]", self.tags.join(", "));
        let first_words: Vec<&str> =
            self.tags.iter().map(|tag| tag.split(' ').next().unwrap_or(tag)).collect();
        let short = format!(" [{}]", first_words.join(", "));
        let tags = if measure(&tags) < width * 0.6 { tags } else { short };
        format!("{}{tags}", fit_middle(&self.name, width - measure(&tags), measure))
    }

    pub(crate) fn layers(&self) -> &'a [MoeLayer] {
        &self.manifest.moe.layers
    }

    /// Whether there is a row of a metric.
    pub(crate) fn has(&self, metric: &str) -> bool {
        self.rows.keys().any(|(name, _)| *name == metric)
    }

    /// Rows of a metric at a layer, or those without one.
    fn rows_at(&self, metric: &'static str, layer: Option<u16>) -> &[&'a MetricRow] {
        self.rows.get(&(metric, layer)).map_or(&[], Vec::as_slice)
    }

    /// The values of a metric over all tokens, one per layer, ascending.
    pub(crate) fn per_layer(&self, metric: &'static str) -> Vec<LayerValue> {
        self.per_layer_at(metric, None)
    }

    /// The same for one index, such as a rank.
    pub(crate) fn per_layer_at(
        &self,
        metric: &'static str,
        index: Option<Index>,
    ) -> Vec<LayerValue> {
        self.rows
            .range((metric, None)..=(metric, Some(u16::MAX)))
            .flat_map(|(_, rows)| rows)
            .filter(|row| row.index == index && row.domain.is_none() && row.phase.is_none())
            .filter_map(|row| {
                Some(LayerValue {
                    layer: row.layer?,
                    value: row.value,
                    interval: row.interval,
                    chance: row.chance,
                })
            })
            .collect()
    }

    /// `decode` where a metric has rows of that phase, else both phases together.
    pub(crate) fn generation(&self, metric: &'static str) -> Option<&'static str> {
        let mut rows = self.rows.range((metric, None)..=(metric, Some(u16::MAX)));
        rows.any(|(_, rows)| rows.iter().any(|row| row.phase == Some("decode"))).then_some("decode")
    }

    /// The values of a metric by size or lag, ascending, at a layer or for the model.
    pub(crate) fn by_size(
        &self,
        metric: &'static str,
        layer: Option<u16>,
        phase: Option<&str>,
    ) -> Vec<Point> {
        let mut points: Vec<Point> = self
            .rows_at(metric, layer)
            .iter()
            .filter(|row| row.domain.is_none() && row.phase == phase)
            .filter_map(|row| {
                let x = size_of(row)?;
                Some(Point { x, value: row.value, range: row.interval, chance: row.chance })
            })
            .collect();
        points.sort_by_key(|point| point.x);
        points
    }

    /// The mean over layers of a metric by size or lag, with the range over layers; where layers have
    /// different sizes, of those that have the size.
    pub(crate) fn mean_by_size(&self, metric: &'static str, phase: Option<&str>) -> Vec<Point> {
        let mut of_size: BTreeMap<u32, Vec<Point>> = BTreeMap::new();
        for layer in self.layers() {
            for point in self.by_size(metric, Some(layer.layer), phase) {
                of_size.entry(point.x).or_default().push(point);
            }
        }
        of_size
            .into_iter()
            .map(|(x, points)| {
                let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
                let values: Vec<f64> = points.iter().map(|point| point.value).collect();
                let chances: Vec<f64> = points.iter().filter_map(|point| point.chance).collect();
                let low = values.iter().copied().fold(f64::INFINITY, f64::min);
                let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                Point {
                    x,
                    value: mean(&values),
                    range: (values.len() > 1).then_some((low, high)),
                    chance: (!chances.is_empty()).then(|| mean(&chances)),
                }
            })
            .collect()
    }

    /// Experts of the largest layer.
    pub(crate) fn most_experts(&self) -> u16 {
        self.layers().iter().map(|layer| layer.experts).max().unwrap_or(0)
    }

    /// Rows of a metric about pairs at a layer, over all tokens.
    pub(crate) fn pairs(&self, metric: &'static str, layer: u16) -> Vec<(u16, u16, &'a MetricRow)> {
        self.rows_at(metric, Some(layer))
            .iter()
            .filter(|row| row.domain.is_none() && row.phase.is_none())
            .filter_map(|row| match row.index? {
                Index::Pair(i, j) => Some((i, j, *row)),
                _ => None,
            })
            .collect()
    }

    /// The one value of a metric that has no coordinates.
    pub(crate) fn overall(&self, metric: &'static str) -> Option<&'a MetricRow> {
        self.rows_at(metric, None)
            .iter()
            .copied()
            .find(|row| row.index.is_none() && row.domain.is_none() && row.phase.is_none())
    }

    /// Tokens per second of a phase.
    pub(crate) fn throughput(&self, phase: &str) -> Option<&'a MetricRow> {
        self.rows_at("throughput", None)
            .iter()
            .copied()
            .find(|row| row.phase == Some(phase) && row.domain.is_none())
    }

    /// Durations of the passes of a phase in nanoseconds, ascending.
    pub(crate) fn durations(&self, phase: Phase) -> Vec<f64> {
        let mut durations: Vec<f64> = std::iter::zip(&self.steps.duration_ns, &self.steps.phase)
            .filter(|(_, of)| **of == phase)
            .map(|(ns, _)| *ns as f64)
            .collect();
        durations.sort_by(f64::total_cmp);
        durations
    }

    /// Layer x expert utilisation.
    pub(crate) fn utilisation(&self) -> Option<Grid> {
        self.analysis.matrix("utilisation").map(Grid::from)
    }

    /// Domain x expert share of one layer, and the chance level k/E.
    pub(crate) fn specialisation(&self, layer: &MoeLayer) -> Option<(Grid, f64)> {
        let experts = layer.experts as usize;
        let mut lines: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for row in self.rows_at("domain_specialisation", Some(layer.layer)) {
            let (Some(domain), Some(Index::Expert(expert))) = (&row.domain, row.index) else {
                continue;
            };
            let line = lines.entry(domain).or_insert_with(|| vec![0.0; experts]);
            if let Some(cell) = line.get_mut(expert as usize) {
                *cell = row.value;
            }
        }
        let mut grid = Grid { rows: vec![], columns: experts, values: vec![] };
        for (domain, shown) in &self.domains {
            if let Some(line) = lines.get(domain.as_str()) {
                grid.rows.push(shown.clone());
                grid.values.extend(line);
            }
        }
        let chance = f64::from(layer.top_k) / f64::from(layer.experts.max(1));
        (grid.rows.len() >= 2).then_some((grid, chance))
    }

    /// Pairs of experts in one token, by layer.
    pub(crate) fn coactivation(&self) -> &'a [Coactivation] {
        &self.analysis.structure.coactivation
    }

    /// Experts in the order in which rankings would prune them, by layer.
    pub(crate) fn pruning(&self) -> &'a [Pruning] {
        &self.analysis.structure.pruning
    }

    /// Experts of neighbouring layers, by the earlier one.
    pub(crate) fn transitions(&self) -> &'a [Transitions] {
        &self.analysis.structure.transitions
    }

    /// Tokens that belong to an expert, by layer.
    pub(crate) fn specialists(&self) -> &'a [Specialists] {
        &self.analysis.structure.specialists
    }

    /// Distinct experts per layer of each pass, in the order of `steps`; NaN where there are none.
    pub(crate) fn distinct(&self) -> &'a [f32] {
        &self.analysis.distinct_per_pass
    }

    /// A few sequences token by token.
    pub(crate) fn excerpt(&self) -> &'a Excerpt {
        &self.analysis.excerpt
    }

    /// Name of a domain by its index, as shown.
    pub(crate) fn domain(&self, index: u16) -> String {
        self.domains.get(usize::from(index)).map_or_else(String::new, |(_, shown)| shown.clone())
    }

    /// The device in words, with its driver: two runs compare in speed when these are equal.
    pub(crate) fn device(&self) -> String {
        let device = &self.manifest.device;
        let mut text = format!("{}, {}", device.backend, device.adapter);
        if let Some(driver) = &device.driver {
            text.push_str(&format!(", {driver}"));
        }
        if let Some(version) = &device.driver_version {
            text.push_str(&format!(" {version}"));
        }
        sanitize(&text).into_owned()
    }
}
