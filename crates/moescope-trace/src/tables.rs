//! The four tables as plain vectors, for analysis that walks millions of rows.

use std::ops::Range;

use crate::columns::{Phase, StepColumns};

/// How a flat vector of lists is cut into rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lists {
    /// Every row has this many entries.
    Fixed(usize),
    /// Row `r` has the entries `offsets[r]..offsets[r + 1]`; one offset more than rows.
    Offsets(Vec<u64>),
}

impl Default for Lists {
    fn default() -> Self {
        Lists::Fixed(0)
    }
}

impl Lists {
    /// Where row `row` lies in the flat vector.
    ///
    /// # Panics
    ///
    /// Where the lists have offsets and `row` is out of range.
    #[inline]
    pub fn range(&self, row: usize) -> Range<usize> {
        match self {
            Lists::Fixed(width) => row * width..(row + 1) * width,
            // Offsets were checked against the length of a vector in memory: they fit usize.
            Lists::Offsets(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
        }
    }

    /// Entries of every row, where all rows have the same number.
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Lists::Fixed(width) => Some(*width),
            Lists::Offsets(_) => None,
        }
    }
}

/// `tokens/`: one entry per token in every vector.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenTable {
    /// Index of the prompt in the run.
    pub sequence: Vec<u32>,
    /// Position in the sequence, from 0.
    pub position: Vec<u32>,
    /// Forward pass that processed the token.
    pub step: Vec<u32>,
    /// Phase of that pass.
    pub phase: Vec<Phase>,
    /// Token id.
    pub token_id: Vec<u32>,
    /// The token's text. Untrusted: escape it where it is shown.
    pub text: Vec<String>,
    /// Index into [`domains`](Self::domains).
    pub domain: Vec<u16>,
    /// Domain names in order of first appearance. Untrusted, as the text.
    pub domains: Vec<String>,
    /// Log-probability the model gave this token after those before it, nats; none for the first of a
    /// sequence and where it was not recorded.
    pub logprob: Vec<Option<f32>>,
}

impl TokenTable {
    /// Number of tokens, T.
    pub fn rows(&self) -> usize {
        self.sequence.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.sequence.is_empty()
    }

    /// Domain name of token `row`.
    pub fn domain_of(&self, row: usize) -> &str {
        &self.domains[usize::from(self.domain[row])]
    }
}

/// `routing/`: one entry per token and MoE layer (R = T * L rows) in the scalar vectors; lists lie flat.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutingTable {
    /// Index of the prompt in the run.
    pub sequence: Vec<u32>,
    /// Position in the sequence, from 0.
    pub position: Vec<u32>,
    /// Index of the layer among all decoder layers.
    pub layer: Vec<u16>,
    /// How `experts`, `weights` and `output_norms` are cut into rows: `Fixed(K)` where every layer has the
    /// same K.
    pub lists: Lists,
    /// Selected experts in rank order, K per row.
    pub experts: Vec<u16>,
    /// Weights as applied, K per row; `None` where no row has them, NaN where one row has not.
    pub weights: Option<Vec<f32>>,
    /// Entropy of the full router distribution, nats; `None` and NaN as for `weights`.
    pub entropy: Option<Vec<f32>>,
    /// p(k-th) - p(k+1-th); `None` and NaN as for `weights`.
    pub margin: Option<Vec<f32>>,
    /// L2 norm of each selected expert's output before weighting, K per row; `None` also where it was not
    /// asked for.
    pub output_norms: Option<Vec<f32>>,
    /// How `probs` is cut into rows; a row that has none is empty.
    pub prob_lists: Lists,
    /// The whole router distribution, E per row; `None` also where it was not asked for.
    pub probs: Option<Vec<f32>>,
}

impl RoutingTable {
    /// Number of rows, R.
    pub fn rows(&self) -> usize {
        self.sequence.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.sequence.is_empty()
    }

    /// K, where it is the same for every row.
    pub fn top_k(&self) -> Option<usize> {
        self.lists.fixed()
    }

    /// Selected experts of a row in rank order, `[K]`.
    #[inline]
    pub fn experts_of(&self, row: usize) -> &[u16] {
        &self.experts[self.lists.range(row)]
    }

    /// Weights of a row as applied, `[K]`.
    #[inline]
    pub fn weights_of(&self, row: usize) -> Option<&[f32]> {
        Some(&self.weights.as_ref()?[self.lists.range(row)])
    }

    /// Norms of the selected experts' outputs of a row, `[K]`.
    #[inline]
    pub fn output_norms_of(&self, row: usize) -> Option<&[f32]> {
        Some(&self.output_norms.as_ref()?[self.lists.range(row)])
    }

    /// The whole router distribution of a row, `[E]`; `None` where the row has none.
    #[inline]
    pub fn probs_of(&self, row: usize) -> Option<&[f32]> {
        let probs = &self.probs.as_ref()?[self.prob_lists.range(row)];
        (!probs.is_empty()).then_some(probs)
    }
}

/// `steps/`: one entry per forward pass in every vector. Times in nanoseconds, memory in bytes.
pub type StepTable = StepColumns;

/// `layers/`: one entry per forward pass, layer and component in every vector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerTable {
    /// Number of the pass in the run.
    pub step: Vec<u32>,
    /// Index of the layer among all decoder layers; `u16::MAX` is outside the layers (embedding, head).
    pub layer: Vec<u16>,
    /// Index into [`components`](Self::components).
    pub component: Vec<u16>,
    /// Component names in order of first appearance.
    pub components: Vec<String>,
    /// Wall time, device synchronised before and after, nanoseconds.
    pub duration_ns: Vec<u64>,
}

impl LayerTable {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.step.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.step.is_empty()
    }

    /// Component name of a row.
    pub fn component_of(&self, row: usize) -> &str {
        &self.components[usize::from(self.component[row])]
    }
}
