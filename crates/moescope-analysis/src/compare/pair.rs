//! Two runs under comparison: both studies and what several metrics share.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::agreement::Agreement;
use super::passes::{Passes, passes};
use super::tokens::{Span, common_tokens};
use super::usage::LayerUsage;
use super::{ComparisonMetric, Refusal, TokenWise};
use crate::bootstrap::Resamples;
use crate::row::MetricRow;
use crate::study::{Scope, Study};

/// Two runs, and intermediate results that are computed on first use and shared. Runs over the same
/// sequences are resampled together, so that what a prompt does to both does not count as a difference.
pub(crate) struct Pair<'a> {
    pub(super) base: &'a Study<'a>,
    pub(super) other: &'a Study<'a>,
    /// The whole of the other run, with draws of its own where the sequences differ.
    pub(super) other_scope: Scope,
    /// Whether speed is compared even on different machines.
    pub(super) across_machines: bool,
    spans: Result<Vec<Span>, Refusal>,
    usage: OnceLock<Vec<LayerUsage>>,
    agreement: OnceLock<Agreement>,
    passes: OnceLock<[HashMap<(u32, bool), Passes>; 2]>,
}

impl<'a> Pair<'a> {
    pub(super) fn new(base: &'a Study<'a>, other: &'a Study<'a>, across_machines: bool) -> Self {
        let ids = |study: &Study<'_>| -> Vec<(u32, u16)> {
            study.data.sequences.iter().map(|sequence| (sequence.id, sequence.domain)).collect()
        };
        let paired = base.data.manifest.prompts_hash == other.data.manifest.prompts_hash
            && ids(base) == ids(other);
        let mut other_scope = other.overall().clone();
        if !paired {
            let options = other.options;
            other_scope.resamples =
                Resamples::new(other_scope.units.len(), options.resamples, !options.seed).into();
        }
        Self {
            base,
            other,
            other_scope,
            across_machines,
            spans: common_tokens(base.data, other.data),
            usage: OnceLock::new(),
            agreement: OnceLock::new(),
            passes: OnceLock::new(),
        }
    }

    /// Whether both recorded routing, in MoE layers of the same shape.
    pub(super) fn shapes(&self) -> Result<(), Refusal> {
        let recorded = |study: &Study<'_>| !study.data.layers.is_empty() && !study.data.is_empty();
        let shape = |study: &Study<'_>| -> Vec<(u16, usize, usize)> {
            let layers = study.data.layers.iter();
            layers.map(|layer| (layer.layer, layer.experts, layer.top_k)).collect()
        };
        if !(recorded(self.base) && recorded(self.other)) {
            return Err(Refusal::NoRouting);
        }
        if shape(self.base) != shape(self.other) {
            return Err(Refusal::Shape);
        }
        Ok(())
    }

    /// The tokens that both read after the same tokens.
    pub(super) fn spans(&self) -> Result<&[Span], Refusal> {
        self.spans.as_deref().map_err(Clone::clone)
    }

    /// On how many tokens the token-wise metrics rest.
    pub(super) fn token_wise(&self) -> TokenWise {
        match self.shapes().and_then(|()| self.spans()) {
            Err(refusal) => TokenWise::Refused(refusal),
            Ok(spans) => {
                let tokens = spans.iter().map(|span| span.tokens).sum();
                TokenWise::Compared { tokens, left_out: self.base.data.len() - tokens }
            }
        }
    }

    /// The scope with fewer sequences: how far an interval can be trusted.
    pub(super) fn fewer(&self) -> &Scope {
        std::cmp::min_by_key(self.base.overall(), &self.other_scope, |scope| scope.units.len())
    }

    /// Use of the experts of each layer in both runs.
    pub(super) fn usage(&self) -> &[LayerUsage] {
        self.usage.get_or_init(|| LayerUsage::all(self))
    }

    /// Experts and first choices of tokens that both read after the same tokens.
    pub(super) fn agreement(&self) -> Result<&Agreement, Refusal> {
        let spans = self.spans()?;
        Ok(self.agreement.get_or_init(|| Agreement::new(self, spans)))
    }

    /// Forward passes of the base and of the other run, by sequence and whether they decode.
    pub(super) fn passes(&self) -> &[HashMap<(u32, bool), Passes>; 2] {
        self.passes.get_or_init(|| [passes(self.base.data), passes(self.other.data)])
    }

    /// A row about a scope of the base, without a value yet.
    pub(super) fn row(&self, metric: &ComparisonMetric, scope: &Scope) -> MetricRow {
        self.base.row(metric.name, metric.unit, scope)
    }
}
