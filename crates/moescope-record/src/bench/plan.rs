//! What a grid needs, before anything is loaded.

use burn::tensor::Device;
use moescope_model::{
    Capacity, DType, ModelSpec,
    capacity::{Demand, Room},
    footprint, ops,
};
use moescope_trace::bench::Configuration;

use super::{error::BenchError, pass::CHUNK, session::Options};

/// A grid in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Rows.
    pub rows: usize,
    /// Passes through a row at least: cold, observed, warm-ups, samples.
    pub passes: u32,
    /// Tokens processed at least, in all passes, depths included.
    pub tokens: u64,
    /// Bytes of the largest KV cache.
    pub cache_bytes: u64,
}

/// Refuses rows that are longer than the context.
///
/// # Errors
///
/// [`BenchError::Context`] with the longest such row.
pub fn check_context(configurations: &[Configuration], spec: &ModelSpec) -> Result<(), BenchError> {
    let longest = configurations.iter().max_by_key(|row| tokens_of(row));
    match longest.filter(|row| tokens_of(row) > spec.context as u64) {
        None => Ok(()),
        Some(row) => Err(BenchError::Context {
            configuration: row.clone(),
            tokens: tokens_of(row),
            context: spec.context,
        }),
    }
}

/// Refuses a row that does not fit what a device can hold, weights and all.
///
/// # Errors
///
/// [`moescope_model::ModelError::DoesNotFit`] and [`moescope_model::ModelError::TensorTooLarge`] say what would.
pub fn check_room(
    row: &Configuration,
    spec: &ModelSpec,
    dtype: DType,
    device: &Device,
    capacity: &Capacity,
) -> moescope_model::Result<()> {
    let (depth, prompt) = (row.depth as usize, row.prompt as usize);
    let demand = Demand {
        batch: row.batch as usize,
        context: tokens_of(row) as usize,
        // The depth is filled in passes of its own.
        prompt: prompt.max(depth.min(CHUNK)).max(1),
        scored: 0,
    };
    Room { dtype, demand, on_gpu: !ops::on_cpu(device) }.check(spec, capacity)
}

impl Plan {
    /// What these rows need of a model.
    pub fn of(configurations: &[Configuration], spec: &ModelSpec, options: &Options) -> Self {
        let passes = 2 + options.warm_up.least + options.samples;
        let tokens = configurations.iter().map(|row| {
            let measured = u64::from(row.prompt) + u64::from(row.generate);
            u64::from(row.batch) * (u64::from(passes) * measured + 2 * u64::from(row.depth))
        });
        Plan {
            rows: configurations.len(),
            passes,
            tokens: tokens.sum(),
            cache_bytes: configurations.iter().map(|row| cache_bytes(spec, row)).max().unwrap_or(0),
        }
    }
}

/// Bytes of a configuration's KV cache.
pub(super) fn cache_bytes(spec: &ModelSpec, row: &Configuration) -> u64 {
    footprint::kv_bytes(spec, row.batch as usize, tokens_of(row) as usize)
}

/// Tokens of one sequence.
fn tokens_of(row: &Configuration) -> u64 {
    u64::from(row.depth) + u64::from(row.prompt) + u64::from(row.generate)
}
