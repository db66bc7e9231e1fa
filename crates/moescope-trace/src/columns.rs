//! The four tables as columns in memory: what a recorder fills and a writer turns into parts.
//!
//! Every vector of one table has one entry per row, except the flattened lists of
//! [`RoutingColumns`], which have `top_k` (or `E`) entries per row.

/// Which part of a generation a token or a forward pass belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// The prompt is processed.
    Prefill,
    /// One token after the other is generated.
    Decode,
}

impl Phase {
    /// The name in the `phase` column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Prefill => "prefill",
            Phase::Decode => "decode",
        }
    }

    /// The phase with this name in the `phase` column, if there is one.
    pub fn parse(name: &str) -> Option<Self> {
        [Phase::Prefill, Phase::Decode].into_iter().find(|phase| phase.as_str() == name)
    }
}

/// `tokens/`: one row per token the model read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenColumns {
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
    /// The token's text (lossy where a token is part of a character).
    pub text: Vec<String>,
    /// Domain of the prompt.
    pub domain: Vec<String>,
    /// Log-probability the model gave this token after those before it, nats.
    pub logprob: Vec<Option<f32>>,
}

/// `routing/`: one row per token and MoE layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutingColumns {
    /// Index of the prompt in the run.
    pub sequence: Vec<u32>,
    /// Position in the sequence, from 0.
    pub position: Vec<u32>,
    /// Index of the layer among all decoder layers.
    pub layer: Vec<u16>,
    /// Entries per row of `experts` and `weights`.
    pub top_k: usize,
    /// Selected experts in rank order, `top_k` per row.
    pub experts: Vec<u16>,
    /// Weights as applied, `top_k` per row; empty where not recorded (imports).
    pub weights: Vec<f32>,
    /// Entropy of the full router distribution, nats; empty where not recorded.
    pub entropy: Vec<f32>,
    /// p(k-th) - p(k+1-th); empty where not recorded.
    pub margin: Vec<f32>,
    /// The whole router distribution, `experts_total` per row; optional.
    pub probs: Option<Vec<f32>>,
    /// Entries per row of `probs`: the number of experts E.
    pub experts_total: usize,
    /// L2 norm of each selected expert's output before weighting, `top_k` per row; optional.
    pub output_norms: Option<Vec<f32>>,
}

/// `steps/`: one row per forward pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepColumns {
    /// Number of the pass in the run, from 0.
    pub step: Vec<u32>,
    /// Phase.
    pub phase: Vec<Phase>,
    /// Sequences in the pass.
    pub batch: Vec<u32>,
    /// New tokens in the pass, over the whole batch.
    pub tokens: Vec<u32>,
    /// Tokens of context before the pass, per sequence.
    pub context: Vec<u32>,
    /// Wall time, device synchronised, nanoseconds.
    pub duration_ns: Vec<u64>,
    /// Time on the device, where it can be profiled, nanoseconds.
    pub device_ns: Vec<Option<u64>>,
    /// Bytes in use in the device's memory pools, where reported.
    pub bytes_in_use: Vec<Option<u64>>,
    /// Bytes the pools hold.
    pub bytes_reserved: Vec<Option<u64>>,
    /// Resident memory of the process, bytes.
    pub rss_bytes: Vec<Option<u64>>,
}

/// `layers/`: one row per forward pass, layer and component; profiled runs only.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerColumns {
    /// Number of the pass in the run.
    pub step: Vec<u32>,
    /// Index of the layer among all decoder layers; `u16::MAX` is outside the layers (embedding, head).
    pub layer: Vec<u16>,
    /// `attention`, `router`, `experts`, `mlp`, `embedding`, `head`, ...
    pub component: Vec<&'static str>,
    /// Wall time, device synchronised before and after, nanoseconds.
    pub duration_ns: Vec<u64>,
}

impl TokenColumns {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.sequence.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }
}

impl RoutingColumns {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.sequence.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }
}

impl StepColumns {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.step.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }
}

impl LayerColumns {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.step.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }
}
