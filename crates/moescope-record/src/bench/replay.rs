//! The tokens of a recorded run and the experts each selected.

use moescope_model::{ModelSpec, check_ids};
use moescope_trace::{Run, RunTables};

use super::error::BenchError;
use crate::error::Result;

/// A run as a stream of tokens, sequence after sequence.
pub(super) struct Replay {
    /// Ids, in the order of sequences and positions.
    pub(super) tokens: Vec<u32>,
    /// Per MoE layer of the model: `[T, K]` in rank order.
    layers: Vec<(usize, Vec<u16>)>,
}

impl Replay {
    pub(super) fn read(run: &Run, spec: &ModelSpec) -> Result<Self> {
        let wrong =
            |reason: String| BenchError::Replay { run: run.path().display().to_string(), reason };
        check_shape(run, spec).map_err(wrong)?;
        let tables = run.read()?;
        let order = in_order(&tables);
        let tokens: Vec<u32> = order.iter().map(|&at| tables.tokens.token_id[at]).collect();
        check_ids(&tokens, spec.vocab)?;
        if tokens.is_empty() {
            return Err(wrong("it has no tokens with their routing".into()).into());
        }
        let layers = experts(&tables, &order, spec).map_err(wrong)?;
        Ok(Replay { tokens, layers })
    }

    /// Experts of token `at` in the `layer`-th MoE layer, `[K]`.
    pub(super) fn experts(&self, layer: usize, at: usize) -> &[u16] {
        let (top_k, ids) = &self.layers[layer];
        &ids[at * top_k..(at + 1) * top_k]
    }
}

/// Every MoE layer of the model must be one of the run. The run may have more: a model cut to its first
/// layers replays those.
fn check_shape(run: &Run, spec: &ModelSpec) -> Result<(), String> {
    let recorded = &run.manifest().moe.layers;
    if spec.moe.is_empty() {
        return Err("the model has no MoE layers to force experts in".into());
    }
    for moe in &spec.moe {
        let shape = |layer: u16, experts: u16, top_k: u16| {
            format!("layer {layer} with {top_k} of {experts} experts")
        };
        let want = shape(moe.layer, moe.experts, moe.top_k);
        match recorded.iter().find(|r| r.layer == moe.layer) {
            Some(r) if (r.experts, r.top_k) == (moe.experts, moe.top_k) => {}
            Some(r) => {
                let found = shape(r.layer, r.experts, r.top_k);
                return Err(format!(
                    "the model has {want}, the run {found}; replay a run of the same shape"
                ));
            }
            None => {
                return Err(format!(
                    "the model has {want}, the run has no such MoE layer; replay a run of the same shape"
                ));
            }
        }
    }
    Ok(())
}

/// Rows of the token table by sequence and position.
fn in_order(tables: &RunTables) -> Vec<usize> {
    let key = |at: &usize| (tables.tokens.sequence[*at], tables.tokens.position[*at]);
    let mut order: Vec<usize> = (0..tables.tokens.rows()).collect();
    order.sort_by_key(key);
    order
}

/// Per MoE layer of the model the experts of all tokens, in their order.
fn experts(
    tables: &RunTables,
    order: &[usize],
    spec: &ModelSpec,
) -> Result<Vec<(usize, Vec<u16>)>, String> {
    let mut place = vec![0; order.len()];
    order.iter().enumerate().for_each(|(place_in_order, &at)| place[at] = place_in_order);
    let mut layer_of = vec![None; usize::from(u16::MAX) + 1];
    spec.moe.iter().enumerate().for_each(|(at, moe)| layer_of[usize::from(moe.layer)] = Some(at));
    let room = |top_k: u16| (usize::from(top_k), vec![0; order.len() * usize::from(top_k)]);
    let mut layers: Vec<(usize, Vec<u16>)> = spec.moe.iter().map(|moe| room(moe.top_k)).collect();
    for row in 0..tables.routing.rows() {
        let layer = tables.routing.layer[row];
        let Some(at) = layer_of[usize::from(layer)] else { continue };
        let (top_k, ids) = &mut layers[at];
        let found = tables.routing.experts_of(row);
        if found.len() != *top_k {
            let (count, position) = (found.len(), tables.routing.position[row]);
            return Err(format!(
                "layer {layer} has {count} experts at position {position}, expected {top_k}; it can't be replayed"
            ));
        }
        let token = place[tables.token_of_row[row] as usize];
        ids[token * *top_k..(token + 1) * *top_k].copy_from_slice(found);
    }
    Ok(layers)
}
