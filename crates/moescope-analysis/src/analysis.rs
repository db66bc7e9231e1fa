//! All metrics of a run, and ways to find a value among them.

use moescope_trace::manifest::Manifest;
use moescope_trace::{Phase, Run};

use crate::compare::{Comparison, compare};
use crate::data::{RunData, StepSeries};
use crate::error::AnalysisError;
use crate::excerpt::Excerpt;
use crate::metric::{Metric, Need};
use crate::metrics::{DEAD_EXPERTS, METRICS, TOKENS};
use crate::names::distinct_names;
use crate::options::Options;
use crate::row::{Index, MetricRow};
use crate::structure::Structure;
use crate::study::Study;

/// What is known about one run.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// Name for tables and legends; distinct among runs analysed together.
    pub name: String,
    /// What the run says about itself.
    pub manifest: Manifest,
    /// Whether the run did not reach its end.
    pub partial: bool,
    /// Sequences with at least one token.
    pub sequences: usize,
    /// Tokens, T.
    pub tokens: usize,
    /// Tokens of prompts.
    pub prefill_tokens: usize,
    /// Tokens the model generated and read again.
    pub decode_tokens: usize,
    /// Domain names, untrusted text. `Index::Pair` of `domain_divergence` points into it.
    pub domains: Vec<String>,
    /// Sequences of each of them.
    pub domain_sequences: Vec<usize>,
    /// The long table: metrics in the order of [`METRICS`].
    pub rows: Vec<MetricRow>,
    /// Metrics without rows, and why.
    pub absent: Vec<Absent>,
    /// Forward passes, for distributions and time series.
    pub steps: StepSeries,
    /// A few sequences token by token.
    pub excerpt: Excerpt,
    /// Distinct experts per MoE layer of each pass of `steps`, mean over layers; NaN for a pass without
    /// routed tokens. Empty where `distinct_experts` was not computed.
    pub distinct_per_pass: Vec<f32>,
    /// Tables behind metrics of which `rows` holds only the strongest entries.
    pub structure: Structure,
}

/// A metric that a run has no values for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Absent {
    /// Name of the metric.
    pub metric: &'static str,
    /// Why, such as `not recorded: router entropy`.
    pub reason: String,
}

/// A metric as layers x experts.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Model layer of each row, `[L]`.
    pub layers: Vec<u16>,
    /// Values by expert, `[L][E]`; layers may have different E.
    pub values: Vec<Vec<f64>>,
}

/// Analyses one run.
///
/// # Errors
///
/// As [`RunData::load`].
pub fn analyze(run: &Run, options: &Options) -> Result<Analysis, AnalysisError> {
    Ok(analyze_data(&RunData::load(run)?, options))
}

/// Analyses runs and compares each with the first. At most two runs are in memory at a time.
///
/// # Errors
///
/// As [`RunData::load`], for the first run that fails.
pub fn analyze_all(
    runs: &[Run],
    options: &Options,
) -> Result<(Vec<Analysis>, Vec<Comparison>), AnalysisError> {
    let names = distinct_names(&runs.iter().map(Run::manifest).collect::<Vec<_>>());
    let mut analyses = Vec::with_capacity(runs.len());
    let mut comparisons = Vec::new();
    let mut base: Option<RunData> = None;
    for (at, (run, name)) in runs.iter().zip(names).enumerate() {
        let data = RunData { name, ..RunData::load(run)? };
        analyses.push(analyze_data(&data, options));
        match &base {
            None => base = Some(data),
            Some(base) => {
                comparisons.push(Comparison {
                    base: 0,
                    other: at,
                    ..compare(base, &data, options)
                });
            }
        }
    }
    Ok((analyses, comparisons))
}

/// Analyses runs with some of the metrics, without comparing them. One run is in memory at a time.
///
/// # Errors
///
/// As [`RunData::load`], for the first run that fails.
pub fn analyze_chosen(
    runs: &[Run],
    options: &Options,
    metrics: &[&Metric],
) -> Result<Vec<Analysis>, AnalysisError> {
    let names = distinct_names(&runs.iter().map(Run::manifest).collect::<Vec<_>>());
    std::iter::zip(runs, names)
        .map(|(run, name)| {
            let data = RunData { name, ..RunData::load(run)? };
            Ok(analyze_metrics(&data, options, metrics.iter().copied()))
        })
        .collect()
}

/// Analyses a run that is already in memory. It cannot fail: what a run did not record is
/// listed in [`Analysis::absent`].
pub fn analyze_data(data: &RunData, options: &Options) -> Analysis {
    analyze_metrics(data, options, METRICS)
}

/// As [`analyze_data`], for some of the metrics only. Dead experts come with the number of tokens: without it
/// they mean nothing.
pub fn analyze_metrics<'m>(
    data: &RunData,
    options: &Options,
    metrics: impl IntoIterator<Item = &'m Metric>,
) -> Analysis {
    let study = Study::new(data, options);
    let mut rows = Vec::new();
    let mut absent = Vec::new();
    let mut metrics: Vec<&Metric> = metrics.into_iter().collect();
    let named = |name: &str| metrics.iter().position(|metric| metric.name == name);
    if let (Some(dead), None) = (named(DEAD_EXPERTS.name), named(TOKENS.name)) {
        metrics.insert(dead, &TOKENS);
    }
    for metric in metrics {
        let missing: Vec<Need> =
            metric.needs.iter().copied().filter(|need| !data.has(*need)).collect();
        let computed = if missing.is_empty() { (metric.compute)(&study) } else { Vec::new() };
        if computed.is_empty() {
            let reason = if missing.is_empty() {
                "nothing to measure: too few tokens, sequences, experts or layers".to_owned()
            } else {
                Need::absence(&missing)
            };
            absent.push(Absent { metric: metric.name, reason });
        }
        rows.extend(computed);
    }
    let mut domain_sequences = vec![0; data.domains.len()];
    for sequence in data.sequences.iter().filter(|sequence| sequence.end > sequence.start) {
        domain_sequences[usize::from(sequence.domain)] += 1;
    }
    let structure = Structure::of(&study);
    let decode = data.tokens.phase.iter().filter(|&&phase| phase == Phase::Decode).count();
    Analysis {
        name: data.name.clone(),
        manifest: data.manifest.clone(),
        partial: data.partial,
        sequences: domain_sequences.iter().sum(),
        tokens: data.len(),
        prefill_tokens: data.len() - decode,
        decode_tokens: decode,
        domains: data.domains.clone(),
        domain_sequences,
        rows,
        absent,
        steps: data.steps.clone(),
        excerpt: Excerpt::new(data),
        distinct_per_pass: study
            .passes_if_counted()
            .map_or_else(Vec::new, |passes| passes.distinct.clone()),
        structure,
    }
}

impl Analysis {
    /// All rows of a metric.
    pub fn rows_of<'a, 'm>(
        &'a self,
        metric: &'m str,
    ) -> impl Iterator<Item = &'a MetricRow> + use<'a, 'm> {
        self.rows.iter().filter(move |row| row.metric == metric)
    }

    /// The row of a metric at these coordinates.
    pub fn row(
        &self,
        metric: &str,
        layer: Option<u16>,
        index: Option<Index>,
        domain: Option<&str>,
        phase: Option<&str>,
    ) -> Option<&MetricRow> {
        self.rows.iter().find(|row| {
            row.metric == metric
                && row.layer == layer
                && row.index == index
                && row.domain.as_deref() == domain
                && row.phase == phase
        })
    }

    /// The value of a metric over the whole run, at a layer or (`None`) for the model.
    pub fn value(&self, metric: &str, layer: Option<u16>) -> Option<f64> {
        Some(self.row(metric, layer, None, None, None)?.value)
    }

    /// Rows of a metric over the whole run, one per layer: no index, domain or phase.
    pub fn by_layer<'a, 'm>(
        &'a self,
        metric: &'m str,
    ) -> impl Iterator<Item = (u16, &'a MetricRow)> + use<'a, 'm> {
        self.rows_of(metric)
            .filter(|row| row.index.is_none() && row.domain.is_none() && row.phase.is_none())
            .filter_map(|row| Some((row.layer?, row)))
    }

    /// Rows of a metric by domain, at a layer or for the model, over both phases.
    pub fn by_domain<'a, 'm>(
        &'a self,
        metric: &'m str,
        layer: Option<u16>,
    ) -> impl Iterator<Item = (&'a str, &'a MetricRow)> + use<'a, 'm> {
        self.rows_of(metric)
            .filter(move |row| row.layer == layer && row.index.is_none() && row.phase.is_none())
            .filter_map(|row| Some((row.domain.as_deref()?, row)))
    }

    /// A metric by expert over the whole run, such as `utilisation`, as layers x experts; `None`
    /// where it has no such rows.
    pub fn matrix(&self, metric: &str) -> Option<Matrix> {
        self.collect_matrix(
            self.rows_of(metric).filter(|row| row.domain.is_none() && row.phase.is_none()),
            |row| row.layer,
        )
        .map(|(layers, values)| Matrix { layers, values })
    }

    /// A metric by domain and expert at one layer, such as `domain_specialisation`: domain names
    /// and their values by expert, `[E]`.
    pub fn domain_matrix<'a>(
        &'a self,
        metric: &str,
        layer: u16,
    ) -> Option<(Vec<&'a str>, Vec<Vec<f64>>)> {
        self.collect_matrix(
            self.rows_of(metric).filter(|row| row.layer == Some(layer) && row.phase.is_none()),
            |row| row.domain.as_deref(),
        )
    }

    /// Rows by expert as lines, one per key; experts ascend within a line.
    fn collect_matrix<'a, K: PartialEq + Copy>(
        &self,
        rows: impl Iterator<Item = &'a MetricRow>,
        key: impl Fn(&'a MetricRow) -> Option<K>,
    ) -> Option<(Vec<K>, Vec<Vec<f64>>)> {
        let mut keys: Vec<K> = Vec::new();
        let mut lines: Vec<Vec<f64>> = Vec::new();
        for row in rows {
            let (Some(key), Some(Index::Expert(_))) = (key(row), row.index) else {
                continue;
            };
            if keys.last() != Some(&key) {
                keys.push(key);
                lines.push(Vec::new());
            }
            lines.last_mut()?.push(row.value);
        }
        (!keys.is_empty()).then_some((keys, lines))
    }

    /// What a reader must know wherever this run's numbers appear: `partial run`, `random weights`,
    /// `first layers only`, `rumoured shapes`, `software adapter`, `profiled`.
    pub fn labels(&self) -> Vec<&'static str> {
        self.manifest.labels(self.partial)
    }

    /// The name with its labels: `tiny (flex) [partial run]`.
    pub fn labelled_name(&self) -> String {
        let labels = self.labels();
        if labels.is_empty() {
            self.name.clone()
        } else {
            format!("{} [{}]", self.name, labels.join(", "))
        }
    }
}
