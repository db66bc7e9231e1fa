//! What is known of a model and of the device it should fit.

use moescope_model::{
    Capacity, DType, Demand, ModelSpec,
    capacity::{Fit, Large, Needed, Room},
    catalog::Entry,
    footprint::{Distinct, PassShape, Stored, traffic},
};
use moescope_record::recorder::scored_rows;

/// Types weights can be held in that differ in size; f16 takes what bf16 takes.
pub(super) const TYPES: [DType; 2] = [DType::F32, DType::Bf16];
/// Tokens of a prompt, for the activations of its pass.
const PROMPT: usize = 512;

/// Everything `inspect` prints.
pub(super) struct Facts {
    pub(super) spec: ModelSpec,
    pub(super) entry: Option<Entry>,
    pub(super) source: String,
    pub(super) labels: Vec<String>,
    /// How the weights lie on disk, where that is known.
    pub(super) stored: Option<Stored>,
    pub(super) dtype: DType,
    /// Tokens that reading and fit are counted for.
    pub(super) context: usize,
    /// As `--device` names it.
    pub(super) device: String,
    pub(super) on_gpu: bool,
    pub(super) capacity: Capacity,
    /// Bytes per second.
    pub(super) bandwidth: f64,
    /// Whether all layers are there: published counts are of the whole model.
    pub(super) whole: bool,
}

impl Facts {
    /// Contexts at which a token's reading is counted.
    pub(super) fn contexts(&self) -> Vec<usize> {
        let mut contexts = vec![0, self.context, self.spec.context];
        contexts.dedup();
        contexts
    }

    /// Bytes one decoded token reads after `context` others.
    pub(super) fn read(&self, dtype: DType, context: usize) -> f64 {
        let before = context.min(self.spec.context.saturating_sub(1));
        let pass = PassShape::decode(1, before);
        traffic(&self.spec, dtype, pass, Distinct::Uniform).total()
    }

    /// What the model is asked to hold: what `run` asks for.
    pub(super) fn demand(&self) -> Demand {
        let prompt = PROMPT.min(self.context);
        let scored = scored_rows(self.spec.vocab, prompt, self.capacity.tensor);
        Demand { batch: 1, context: self.context, prompt, scored }
    }

    /// What the model needs, and what of it fits.
    pub(super) fn fitting(&self, dtype: DType) -> Fitting {
        let room = Room { dtype, demand: self.demand(), on_gpu: self.on_gpu };
        Fitting {
            needed: room.needed(&self.spec),
            fit: self.capacity.memory.map(|_| room.fit(&self.spec, &self.capacity)),
            too_large: room.too_large(&self.spec, &self.capacity).map(|(tensor, _)| tensor),
        }
    }

    /// Whether the parameters a token uses are counted without the input embedding, of which it reads one row.
    pub(super) fn active_without_embedding(&self) -> bool {
        !self.spec.is_tied() && !self.spec.active_embedding
    }
}

/// How a model and a device go together, with its weights in one type.
pub(super) struct Fitting {
    pub(super) needed: Needed,
    /// Where the device's memory is known.
    pub(super) fit: Option<Fit>,
    /// A tensor that is never cut and that the device does not take.
    pub(super) too_large: Option<Large>,
}
