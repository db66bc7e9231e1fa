//! Whether a model fits, and what of it would.

use std::fmt;

use serde::Serialize;

use super::{Capacity, Large, Memory, bytes, large};
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
    /// Rows of logits made at once after a pass, to score the tokens it processed; 0 is none.
    pub scored: usize,
}

impl Demand {
    /// The longest pass, as late as the context allows: a prompt may follow other tokens.
    pub(super) fn longest_pass(&self) -> PassShape {
        let new = self.prompt.clamp(1, self.context.max(1));
        PassShape { batch: self.batch, new, context: self.context.saturating_sub(new) }
    }

    /// Rows scored at once: a token is scored by the row before it.
    pub(super) fn scored(&self) -> usize {
        self.scored.min(self.prompt.saturating_sub(1))
    }

    /// The same for a shorter context, and prompts no longer than it.
    fn within(&self, context: usize) -> Self {
        Demand { context, prompt: self.prompt.min(context), ..*self }
    }
}

impl Default for Demand {
    /// One token.
    fn default() -> Self {
        Demand { batch: 1, context: 1, prompt: 1, scored: 0 }
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
        let passes = [
            (self.demand.longest_pass(), self.demand.scored()),
            (PassShape::decode(batch, context.saturating_sub(1)), 0),
        ];
        let activations =
            passes.map(|(pass, scored)| activations(spec, pass, scored, self.on_gpu).total());
        Needed {
            weights: spec.bytes(self.dtype),
            kv: kv_bytes(spec, batch, context),
            activations: activations[0].max(activations[1]),
        }
    }

    /// The largest tensor that is never cut: matrices of one expert, keys of a layer, and on a GPU attention
    /// scores, what the blocks between make, and logits. All other weights are cut where a device asks for it.
    pub fn largest(&self, spec: &ModelSpec) -> Large {
        large::largest(spec, self)
    }

    /// Whether the model fits, as far as the capacity is known.
    pub fn fits(&self, spec: &ModelSpec, capacity: &Capacity) -> bool {
        self.too_large(spec, capacity).is_none()
            && capacity.memory.is_none_or(|memory| self.needed(spec).total() <= memory.bytes)
    }

    /// The largest tensor that is never cut, where the device does not take it, and what it takes.
    pub fn too_large(&self, spec: &ModelSpec, capacity: &Capacity) -> Option<(Large, u64)> {
        let limit = capacity.tensor?;
        Some((self.largest(spec), limit)).filter(|(tensor, limit)| tensor.bytes > *limit)
    }

    /// Refuses what does not fit.
    ///
    /// # Errors
    ///
    /// [`ModelError::DoesNotFit`] with what would, [`ModelError::TensorTooLarge`].
    pub fn check(&self, spec: &ModelSpec, capacity: &Capacity) -> Result<()> {
        if let Some((Large { what, bytes }, limit)) = self.too_large(spec, capacity) {
            let instead = self.instead(spec, capacity);
            return Err(ModelError::TensorTooLarge { what, bytes, limit, instead });
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
            fits: self.or_shorter(capacity).map(|room| room.fit(spec, capacity)).collect(),
        })))
    }

    /// What of the model fits, as far as the capacity is known.
    pub fn fit(&self, spec: &ModelSpec, capacity: &Capacity) -> Fit {
        let with = |demand: Demand| Room { demand, ..*self };
        Fit {
            dtype: self.dtype,
            layers: most(spec.layers, |layers| self.fits(&spec.first_layers(layers), capacity)),
            context: most(spec.context, |context| {
                with(self.demand.within(context)).fits(spec, capacity)
            }),
        }
    }

    /// The same in this type, and in every shorter one of the device.
    fn or_shorter(&self, capacity: &Capacity) -> impl Iterator<Item = Self> {
        let (room, own) = (*self, self.dtype);
        let shorter = capacity.dtypes.iter().filter(move |dtype| dtype.bytes() < own.bytes());
        std::iter::once(own).chain(shorter).map(move |dtype| Room { dtype, ..room })
    }

    /// What may be asked for where a tensor is too large.
    fn instead(&self, spec: &ModelSpec, capacity: &Capacity) -> String {
        if let Some(room) = self.or_shorter(capacity).find(|room| room.fits(spec, capacity)) {
            return format!("--dtype {} would fit", room.dtype);
        }
        let rooms = || self.or_shorter(capacity);
        let less = rooms().find_map(|room| Some((room.dtype, room.less(spec, capacity)?)));
        match less {
            Some((dtype, less)) if dtype == self.dtype => return format!("{less} would fit"),
            Some((dtype, less)) => return format!("{less} would fit, with --dtype {dtype}"),
            None => {}
        }
        let least = rooms().map(|room| Room { demand: Demand::default(), ..room });
        match least.min_by_key(|room| room.largest(spec).bytes) {
            Some(room) if room.too_large(spec, capacity).is_some() => format!(
                "not even one token fits; a device that binds {} is needed, or the CPU (--device flex), which has no such limit",
                bytes(room.largest(spec).bytes)
            ),
            _ => "no shorter prompt or context makes it fit".into(),
        }
    }

    /// Which shorter prompts, shorter context, fewer sequences or fewer layers would fit in this type.
    fn less(&self, spec: &ModelSpec, capacity: &Capacity) -> Option<String> {
        let demand = self.demand;
        let fits = |demand: Demand| Room { demand, ..*self }.fits(spec, capacity);
        let prompt = most(demand.prompt, |prompt| fits(Demand { prompt, ..demand }));
        let context = most(demand.context, |context| fits(demand.within(context)));
        let batch = most(demand.batch, |batch| fits(Demand { batch, ..demand }));
        let layers = most(spec.layers, |layers| self.fits(&spec.first_layers(layers), capacity));
        match (prompt, context, batch, layers) {
            (1.., ..) => Some(format!("prompts of at most {prompt} tokens")),
            (_, 1.., ..) => Some(format!("a context of {context} tokens")),
            (_, _, 1.., _) => Some(format!("{batch} sequences at once")),
            (.., 1..) => Some(format!("--layers {layers}")),
            _ => None,
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
