//! What a grid needs, before anything is loaded.

use moescope_model::{ModelSpec, footprint};
use moescope_trace::bench::Configuration;

use super::{error::BenchError, session::Options};

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
