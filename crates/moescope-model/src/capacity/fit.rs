//! Whether a model fits, and what of it would.

use std::fmt;

use serde::Serialize;

use super::{Capacity, Memory, bytes, large};
use crate::{
    dtype::DType,
    error::{ModelError, Result},
    footprint::{PassShape, activations, kv_bytes},
    spec::ModelSpec,
};

/// What a model is asked to hold at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Demand {
    /// Sequences.
    pub batch: usize,
    /// Tokens the cache has room for, per sequence.
    pub context: usize,
    /// Tokens of the longest pass, per sequence: the longest prompt.
    pub prompt: usize,
}

impl Demand {
    /// The longest pass, as late as the context allows: a prompt may follow other tokens.
    pub(super) fn longest_pass(&self) -> PassShape {
        let new = self.prompt.clamp(1, self.context.max(1));
        PassShape { batch: self.batch, new, context: self.context.saturating_sub(new) }
    }
}

impl Default for Demand {
    /// One token.
    fn default() -> Self {
        Demand { batch: 1, context: 1, prompt: 1 }
    }
}

/// Bytes a model takes, by item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Needed {
    /// Weights.
    pub weights: u64,
    /// Keys and values.
    pub kv: u64,
    /// Activations of the largest pass, at most.
    pub activations: u64,
}

impl Needed {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.kv).saturating_add(self.activations)
    }
}

/// The room a model needs: in which type, for what, on which kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Type of the weights.
    pub dtype: DType,
    /// What it is asked to hold.
    pub demand: Demand,
    /// Whether attention scores are materialised.
    pub on_gpu: bool,
}

/// What of a model fits a capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fit {
    /// Type of the weights.
    pub dtype: DType,
    /// Most layers that fit with the demand; 0 is none, not even one.
    pub layers: usize,
    /// The longest context all layers fit with, up to the model's own; 0 is none.
    pub context: usize,
}

impl Room {
    /// Bytes the model takes.
    pub fn needed(&self, spec: &ModelSpec) -> Needed {
        let Demand { batch, context, .. } = self.demand;
        let passes =
            [self.demand.longest_pass(), PassShape::decode(batch, context.saturating_sub(1))];
        let activations = passes.map(|pass| activations(spec, pass, self.on_gpu).total());
        Needed {
            weights: spec.bytes(self.dtype),
            kv: kv_bytes(spec, batch, context),
            activations: activations[0].max(activations[1]),
        }
    }

    /// Refuses what does not fit.
    ///
    /// # Errors
    ///
    /// [`ModelError::DoesNotFit`] with what would, [`ModelError::TensorTooLarge`].
    pub fn check(&self, spec: &ModelSpec, capacity: &Capacity) -> Result<()> {
        if let Some(limit) = capacity.tensor
            && let Some(tensor) = large::largest(spec, self).filter(|tensor| tensor.bytes > limit)
        {
            let instead = self.largest_tensors_within(spec, limit);
            return Err(ModelError::TensorTooLarge {
                what: tensor.what,
                bytes: tensor.bytes,
                limit,
                instead,
            });
        }
        let Some(memory) = capacity.memory else { return Ok(()) };
        let needed = self.needed(spec);
        if needed.total() <= memory.bytes {
            return Ok(());
        }
        Err(ModelError::DoesNotFit(Box::new(DoesNotFit {
            room: *self,
            needed,
            memory,
            layers: spec.layers,
            longest: spec.context,
            fits: [DType::F32, DType::F16, DType::Bf16]
                .into_iter()
                .filter(|dtype| dtype.bytes() <= self.dtype.bytes())
                .map(|dtype| Room { dtype, ..*self }.fit(spec, memory.bytes))
                .collect(),
        })))
    }

    /// What of the model fits `memory` bytes.
    pub fn fit(&self, spec: &ModelSpec, memory: u64) -> Fit {
        let with_context = |context: usize| {
            let prompt = self.demand.prompt.min(context);
            Room { demand: Demand { context, prompt, ..self.demand }, ..*self }.needed(spec).total()
        };
        Fit {
            dtype: self.dtype,
            layers: most(spec.layers, |layers| {
                self.needed(&spec.first_layers(layers)).total() <= memory
            }),
            context: most(spec.context, |context| with_context(context) <= memory),
        }
    }

    /// What may be asked for so that no tensor exceeds `limit`.
    fn largest_tensors_within(&self, spec: &ModelSpec, limit: u64) -> String {
        let within =
            |room: Room| large::largest(spec, &room).is_none_or(|tensor| tensor.bytes <= limit);
        let fits = |demand: Demand| within(Room { demand, ..*self });
        let Demand { batch, context, prompt } = self.demand;
        let narrow = [DType::F16, DType::Bf16];
        let narrower = narrow.into_iter().filter(|dtype| dtype.bytes() < self.dtype.bytes());
        if let Some(dtype) =
            narrower.into_iter().find(|dtype| within(Room { dtype: *dtype, ..*self }))
        {
            return format!("--dtype {dtype} would fit");
        }
        let sequences = most(batch, |batch| fits(Demand { batch, context, prompt }));
        let context =
            most(context, |context| fits(Demand { batch, context, prompt: prompt.min(context) }));
        let prompt =
            most(prompt, |prompt| fits(Demand { batch, context: self.demand.context, prompt }));
        match (prompt, context, sequences) {
            (0, 0, 0) => "no context fits; another device is needed".into(),
            (0, 0, sequences) => format!("{sequences} sequences at once would fit"),
            (0, context, _) => format!("a context of {context} tokens would fit"),
            (prompt, ..) => format!("prompts of at most {prompt} tokens would fit"),
        }
    }
}

/// The largest of 1 to `limit` that fits, where what fits is all up to some number; 0 if none does.
fn most(limit: usize, fits: impl Fn(usize) -> bool) -> usize {
    if fits(limit) {
        return limit;
    }
    let (mut fit, mut not) = (0, limit);
    while not - fit > 1 {
        let middle = fit + (not - fit) / 2;
        match fits(middle) {
            true => fit = middle,
            false => not = middle,
        }
    }
    fit
}

/// A model that does not fit, and what of it would.
#[derive(Clone, Debug, PartialEq)]
pub struct DoesNotFit {
    room: Room,
    /// Bytes it needs.
    pub needed: Needed,
    /// What there is.
    pub memory: Memory,
    layers: usize,
    longest: usize,
    /// What would fit, by type of the weights.
    pub fits: Vec<Fit>,
}

impl std::error::Error for DoesNotFit {}

impl fmt::Display for DoesNotFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Demand { batch, context, .. } = self.room.demand;
        write!(
            f,
            "the model does not fit: it needs {} (weights in {} {}, key/value cache of {batch} x {context} tokens \
             {}, activations up to {}), and there are {}",
            bytes(self.needed.total()),
            self.room.dtype,
            bytes(self.needed.weights),
            bytes(self.needed.kv),
            bytes(self.needed.activations),
            self.memory,
        )?;
        let mut options = Vec::new();
        for fit in &self.fits {
            let own = fit.dtype == self.room.dtype;
            match fit {
                Fit { layers, .. } if *layers == self.layers => {
                    options.push(format!("--dtype {}", fit.dtype));
                }
                Fit { context, .. } if own && *context > 0 => {
                    options.push(format!("a context of {context} tokens"));
                }
                Fit { layers: 0, .. } => {}
                Fit { layers, .. } if own => options.push(format!("--layers {layers}")),
                Fit { layers, dtype, .. } => {
                    options.push(format!("--layers {layers} --dtype {dtype}"));
                }
            }
        }
        match options.as_slice() {
            [] => write!(f, "; not even one of its {} layers would fit", self.layers),
            options => write!(f, "; what would fit: {}", options.join(", or ")),
        }
    }
}
