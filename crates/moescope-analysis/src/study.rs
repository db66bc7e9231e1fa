//! A run under analysis: the data and what several metrics share.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use moescope_trace::Phase;

use crate::bootstrap::Resamples;
use crate::chance::{Balance, drawn_maxima, uniform_balance};
use crate::counts::{LayerCounts, phase_index};
use crate::data::{LayerData, RunData};
use crate::groups::Groups;
use crate::metrics::{
    GlobalLru, LayerBalance, LayerLru, LayerSaliency, LayerVocabulary, NextLayer, Passes,
    Placements, StrongestPairs,
};
use crate::occurrences::Which;
use crate::options::Options;
use crate::pairs::LayerPairs;
use crate::parallel;
use crate::row::MetricRow;
use crate::runs::phase_runs;
use crate::transitions::LayerTransitions;

/// [`drawn_maxima`] by (E, k).
type Maxima = HashMap<(usize, usize), Arc<[f64]>>;

/// What metrics compute from: a run, options, and intermediate results that are computed on
/// first use and shared.
pub struct Study<'a> {
    /// The run.
    pub data: &'a RunData,
    /// Settings.
    pub options: &'a Options,
    /// Units of the bootstrap.
    pub groups: Groups,
    scopes: Vec<Scope>,
    crossed: Vec<Scope>,
    halves: [Scope; 2],
    counts: OnceLock<Vec<LayerCounts>>,
    balance: OnceLock<Vec<LayerBalance>>,
    pairs: OnceLock<Vec<LayerPairs>>,
    strongest_pairs: OnceLock<Vec<StrongestPairs>>,
    top1: OnceLock<Vec<LayerTransitions>>,
    measuring: OnceLock<Vec<Scope>>,
    next_layer: OnceLock<NextLayer>,
    saliency: OnceLock<Vec<LayerSaliency>>,
    lru: OnceLock<Vec<LayerLru>>,
    global_lru: OnceLock<GlobalLru>,
    placements: OnceLock<Placements>,
    passes: OnceLock<Passes>,
    vocabulary: [OnceLock<Vec<LayerVocabulary>>; 2],
    /// By (E, k, T).
    uniform: Mutex<HashMap<(usize, usize, u64), Option<Balance>>>,
    maxima: Mutex<Maxima>,
}

/// A part of a run that gets a row of its own.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Index of the domain; `None` is all.
    pub domain: Option<u16>,
    /// Phase; `None` is both.
    pub phase: Option<Phase>,
    /// The groups in it, `[U]`.
    pub units: Vec<u32>,
    /// Resamples of those groups.
    pub resamples: Arc<Resamples>,
}

impl Scope {
    /// Whether it is all domains and both phases.
    pub(crate) fn is_whole(&self) -> bool {
        self.domain.is_none() && self.phase.is_none()
    }

    /// Values by group, `[G]`, as values by unit of this scope, `[U]`.
    pub(crate) fn of_units(&self, by_group: &[f64]) -> Vec<f64> {
        self.units.iter().map(|&group| by_group[group as usize]).collect()
    }

    /// The groups of this scope that have tokens of a phase.
    fn part(&self, phase: Phase, seen: &[[bool; 2]]) -> Self {
        let has = |group: &u32| seen[*group as usize][phase_index(phase)];
        let units: Vec<u32> = self.units.iter().copied().filter(has).collect();
        let resamples = if units.len() == self.units.len() {
            Arc::clone(&self.resamples)
        } else {
            self.resamples.with_units(units.len()).into()
        };
        Self { domain: self.domain, phase: Some(phase), units, resamples }
    }
}

impl<'a> Study<'a> {
    /// Prepares the analysis of a run.
    pub fn new(data: &'a RunData, options: &'a Options) -> Self {
        let groups = Groups::new(data);
        // Which groups have tokens of which phase.
        let mut seen = vec![[false; 2]; groups.len()];
        for (index, sequence) in data.sequences.iter().enumerate() {
            let group = groups.of_sequence(index);
            for &phase in &data.tokens.phase[sequence.start..sequence.end] {
                seen[group][phase_index(phase)] = true;
            }
        }
        let both = (0..2).all(|phase| seen.iter().any(|seen| seen[phase]));
        let phases: &[Phase] = if both { &[Phase::Prefill, Phase::Decode] } else { &[] };

        let mut members: Vec<(Option<u16>, Vec<u32>)> =
            vec![(None, (0..groups.len() as u32).collect())];
        if data.domains.len() > 1 {
            let mut by_domain = vec![Vec::new(); data.domains.len()];
            for group in 0..groups.len() {
                by_domain[usize::from(groups.domain(group))].push(group as u32);
            }
            members.extend((0..).map(Some).zip(by_domain));
        }
        let (mut scopes, mut crossed) = (Vec::new(), Vec::new());
        for (domain, units) in members {
            // Domains draw for themselves, or sequence n of all domains would rise and fall as one.
            let seed = options.seed.wrapping_add(domain.map_or(0, |domain| u64::from(domain) + 1));
            let resamples = Arc::new(Resamples::new(units.len(), options.resamples, seed));
            let whole = Scope { domain, phase: None, units, resamples };
            let parts: Vec<Scope> = phases.iter().map(|&phase| whole.part(phase, &seen)).collect();
            scopes.push(whole.clone());
            crossed.push(whole);
            if domain.is_none() {
                scopes.extend(parts.iter().cloned());
            }
            crossed.extend(parts);
        }
        let halves = [false, true].map(|second| {
            let units: Vec<u32> = (0..groups.len() as u32)
                .filter(|&group| groups.is_second_half(group as usize) == second)
                .collect();
            let seed = options.seed.wrapping_sub(1 + u64::from(second));
            let resamples = Resamples::new(units.len(), options.resamples, seed).into();
            Scope { domain: None, phase: None, units, resamples }
        });
        Self {
            data,
            options,
            groups,
            scopes,
            crossed,
            halves,
            counts: OnceLock::new(),
            balance: OnceLock::new(),
            pairs: OnceLock::new(),
            strongest_pairs: OnceLock::new(),
            top1: OnceLock::new(),
            measuring: OnceLock::new(),
            next_layer: OnceLock::new(),
            saliency: OnceLock::new(),
            lru: OnceLock::new(),
            global_lru: OnceLock::new(),
            placements: OnceLock::new(),
            passes: OnceLock::new(),
            vocabulary: Default::default(),
            uniform: Mutex::default(),
            maxima: Mutex::default(),
        }
    }

    /// The whole run.
    pub fn overall(&self) -> &Scope {
        &self.scopes[0]
    }

    /// The whole run; each phase, if the run has both; each domain, if it has more than one.
    pub fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    /// As [`Study::scopes`], and each domain in each phase.
    pub fn scopes_crossed(&self) -> &[Scope] {
        &self.crossed
    }

    /// The scopes without a domain.
    pub fn phases(&self) -> impl Iterator<Item = &Scope> + Clone {
        self.scopes.iter().filter(|scope| scope.domain.is_none())
    }

    /// Whether the run has prompts and generated tokens.
    pub(crate) fn has_both_phases(&self) -> bool {
        self.phases().any(|scope| scope.phase.is_some())
    }

    /// The scopes of one domain each, with its index. A run with a single domain has one: the
    /// whole run.
    pub fn domains(&self) -> impl Iterator<Item = (u16, &Scope)> + Clone {
        let single = self.data.domains.len() == 1;
        self.scopes.iter().filter_map(move |scope| match scope.domain {
            None if single && scope.phase.is_none() => Some((0, scope)),
            domain => Some((domain?, scope)),
        })
    }

    /// The half of the sequences that chooses (hot experts, strongest pairs), and the half on which the
    /// choice is measured.
    pub fn halves(&self) -> &[Scope; 2] {
        &self.halves
    }

    /// [`Study::scopes`], with the groups of the half that measures alone: where what was chosen on the
    /// other half is looked at. Scopes that lose all their groups are left out.
    pub(crate) fn measuring(&self) -> &[Scope] {
        self.measuring.get_or_init(|| {
            let of_scope = |scope: &Scope| {
                let units: Vec<u32> = scope
                    .units
                    .iter()
                    .copied()
                    .filter(|&group| self.groups.is_second_half(group as usize))
                    .collect();
                let resamples = scope.resamples.with_units(units.len()).into();
                let whole = Scope { units, resamples, ..scope.clone() };
                // The whole run has draws of its own, which other metrics of that half share.
                if scope.is_whole() { self.halves[1].clone() } else { whole }
            };
            let scopes = self.scopes.iter().map(of_scope);
            scopes.filter(|scope| !scope.units.is_empty()).collect()
        })
    }

    /// The tokens of a scope as stretches, each with its group.
    pub(crate) fn stretches<'s>(
        &'s self,
        scope: &Scope,
    ) -> impl Iterator<Item = (usize, Range<usize>)> + use<'s, 'a> {
        let mut inside = vec![false; self.groups.len()];
        for &group in &scope.units {
            inside[group as usize] = true;
        }
        let wanted = scope.phase;
        let sequences = self.data.sequences.iter().enumerate();
        sequences
            .map(move |(index, sequence)| (self.groups.of_sequence(index), sequence))
            .filter(move |(group, _)| inside[*group])
            .flat_map(move |(group, sequence)| {
                // Without a phase, a sequence is one stretch.
                let whole = wanted.is_none().then_some(sequence.start..sequence.end);
                let runs = phase_runs(self.data, sequence)
                    .filter(move |(phase, _)| wanted == Some(*phase))
                    .map(|(_, run)| run);
                whole.into_iter().chain(runs).map(move |run| (group, run))
            })
    }

    /// Counts of each layer, in the order of [`RunData::layers`].
    pub fn counts(&self) -> &[LayerCounts] {
        self.counts.get_or_init(|| {
            parallel::map(&self.data.layers, |layer| {
                LayerCounts::new(self.data, layer, &self.groups)
            })
        })
    }

    /// Each layer with its counts.
    pub(crate) fn counted(&self) -> Vec<(&'a LayerData, &LayerCounts)> {
        self.data.layers.iter().zip(self.counts()).collect()
    }

    /// Co-activations in each layer whose experts are not too many, see [`LayerPairs`].
    pub(crate) fn pairs(&self) -> &[LayerPairs] {
        self.pairs.get_or_init(|| LayerPairs::all(self))
    }

    /// The pairs that stand out in the half that chooses, looked at in the other.
    pub(crate) fn strongest_pairs(&self) -> &[StrongestPairs] {
        self.strongest_pairs.get_or_init(|| StrongestPairs::all(self))
    }

    /// As [`Study::pairs`], if a metric has asked for them.
    pub(crate) fn pairs_if_counted(&self) -> &[LayerPairs] {
        self.pairs.get().map_or(&[], Vec::as_slice)
    }

    /// Transitions between the first choices in neighbouring MoE layers, see [`LayerTransitions`].
    pub(crate) fn transitions(&self) -> &[LayerTransitions] {
        self.top1.get_or_init(|| LayerTransitions::all(self))
    }

    /// As [`Study::transitions`], if a metric has asked for them.
    pub(crate) fn transitions_if_counted(&self) -> &[LayerTransitions] {
        self.top1.get().map_or(&[], Vec::as_slice)
    }

    /// Predictions of each MoE layer from the one before it.
    pub(crate) fn next_layer(&self) -> &NextLayer {
        self.next_layer.get_or_init(|| NextLayer::new(self))
    }

    /// Saliency in each layer, as far as it was recorded.
    pub(crate) fn saliency(&self) -> &[LayerSaliency] {
        self.saliency.get_or_init(|| LayerSaliency::all(self))
    }

    /// As [`Study::saliency`], if a metric has asked for it.
    pub(crate) fn saliency_if_counted(&self) -> &[LayerSaliency] {
        self.saliency.get().map_or(&[], Vec::as_slice)
    }

    /// Hits of LRU over whole sequences, by layer.
    pub(crate) fn lru(&self) -> &[LayerLru] {
        self.lru.get_or_init(|| LayerLru::all(self))
    }

    /// Hits of LRU over whole sequences in one cache of all layers.
    pub(crate) fn global_lru(&self) -> &GlobalLru {
        self.global_lru.get_or_init(|| GlobalLru::new(self))
    }

    /// Loads of GPUs, by placement.
    pub(crate) fn placements(&self) -> &Placements {
        self.placements.get_or_init(|| Placements::new(self))
    }

    /// Distinct experts of the forward passes.
    pub(crate) fn passes(&self) -> &Passes {
        self.passes.get_or_init(|| Passes::new(self))
    }

    /// As [`Study::passes`], if a metric has asked for them.
    pub(crate) fn passes_if_counted(&self) -> Option<&Passes> {
        self.passes.get()
    }

    /// Vocabulary specialisation in each layer.
    pub(crate) fn vocabulary(&self, which: Which) -> &[LayerVocabulary] {
        self.vocabulary[which as usize].get_or_init(|| LayerVocabulary::all(self, which))
    }

    /// As [`Study::vocabulary`], if a metric has asked for it.
    pub(crate) fn vocabulary_if_counted(&self, which: Which) -> &[LayerVocabulary] {
        self.vocabulary[which as usize].get().map_or(&[], Vec::as_slice)
    }

    /// Balance statistics of each layer.
    pub(crate) fn balance(&self) -> &[LayerBalance] {
        self.balance.get_or_init(|| LayerBalance::all(self))
    }

    /// Expected balance statistics of T tokens under uniform routing; see [`uniform_balance`].
    pub fn uniform(&self, experts: usize, top_k: usize, tokens: f64) -> Option<Balance> {
        let key = (experts, top_k, tokens as u64);
        // A poisoned lock only means that another metric panicked; the entries are whole.
        if let Some(known) = self.uniform.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return *known;
        }
        let computed = uniform_balance(experts, top_k, tokens as u64);
        self.uniform.lock().unwrap_or_else(PoisonError::into_inner).insert(key, computed);
        computed
    }

    /// Expected largest of E counts of few tokens; see [`drawn_maxima`].
    pub(crate) fn maxima(&self, experts: usize, top_k: usize) -> Arc<[f64]> {
        let key = (experts, top_k);
        // As for `uniform`.
        if let Some(known) = self.maxima.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Arc::clone(known);
        }
        let drawn: Arc<[f64]> = drawn_maxima(experts, top_k).into();
        let mut maxima = self.maxima.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(maxima.entry(key).or_insert(drawn))
    }

    /// A row about a scope, without a value yet.
    pub fn row(&self, metric: &'static str, unit: &'static str, scope: &Scope) -> MetricRow {
        MetricRow {
            metric,
            layer: None,
            index: None,
            domain: scope.domain.map(|domain| self.data.domains[usize::from(domain)].clone()),
            phase: scope.phase.map(Phase::as_str),
            value: f64::NAN,
            interval: None,
            chance: None,
            unit,
        }
    }
}
