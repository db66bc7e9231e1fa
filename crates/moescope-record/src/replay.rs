//! Replaying a recorded run: its tokens, and the experts each of them used, forced upon a model of the same
//! MoE shape. Random weights then route as the real model did.

use burn::tensor::{Device, Tensor};
use moescope_model::{
    Component, ForcedExperts, ModelSpec, MoeLayerSpec, Observer, Routing, check_ids,
};
use moescope_trace::{RoutingTable, Run, manifest::MoeLayer};

use crate::error::{RecordError, Result};

/// Tokens of a run and the experts they used, on the host.
///
/// A *row* is one token of the run that has its routing in every MoE layer, counted in the order of
/// sequences and positions.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Where it was read from.
    path: std::path::PathBuf,
    tokens: Vec<u32>,
    layers: Vec<MoeLayer>,
    /// `[T, K]` per MoE layer, in rank order.
    experts: Vec<Vec<u16>>,
}

impl Recorded {
    /// Reads tokens and routing of a run.
    ///
    /// # Errors
    ///
    /// The run can't be read, is of a dense model, has no token with complete routing, or has rows with
    /// another number of experts than its manifest says.
    pub fn read(run: &Run) -> Result<Self> {
        let refuse = |reason: String| RecordError::Replay { path: run.path().to_owned(), reason };
        let layers = run.manifest().moe.layers.clone();
        if layers.is_empty() {
            return Err(refuse("it is of a dense model: there is no routing to replay".into()));
        }
        let tables = run.read()?;
        let tokens = &tables.tokens;
        if tokens.is_empty() {
            return Err(refuse("it has no token whose routing is complete".into()));
        }
        let mut order: Vec<usize> = (0..tokens.rows()).collect();
        order.sort_unstable_by_key(|&row| (tokens.sequence[row], tokens.position[row]));
        let mut row_of_token = vec![0; order.len()];
        order.iter().enumerate().for_each(|(row, &token)| row_of_token[token] = row);
        let experts = layers
            .iter()
            .map(|layer| of_layer(&tables.routing, &tables.token_of_row, &row_of_token, layer))
            .collect::<Result<_, String>>()
            .map_err(refuse)?;
        Ok(Recorded {
            path: run.path().to_owned(),
            tokens: order.iter().map(|&row| tokens.token_id[row]).collect(),
            layers,
            experts,
        })
    }

    /// Token id of every row.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Experts of every row `[T, K]` in rank order, for each MoE layer.
    pub(crate) fn experts(&self) -> &[Vec<u16>] {
        &self.experts
    }

    /// Checks that a model can be made to route like this run: each of its MoE layers is one of the run's,
    /// with as many experts, of which a token uses as many, and its vocabulary holds the tokens. The run may
    /// have more layers: a model cut to its first ones can replay a run of the whole.
    ///
    /// # Errors
    ///
    /// [`RecordError::Replay`] says which layer differs; [`RecordError::Model`] names a token beyond the
    /// vocabulary.
    pub fn check(&self, spec: &ModelSpec) -> Result<()> {
        self.layers_of(spec)?;
        check_ids(&self.tokens, spec.vocab)?;
        Ok(())
    }

    /// For each MoE layer of a model the layer of the run, by its place among the run's.
    fn layers_of(&self, spec: &ModelSpec) -> Result<Vec<usize>> {
        let refuse = |reason: String| RecordError::Replay { path: self.path.clone(), reason };
        if spec.moe.is_empty() {
            return Err(refuse("the model is dense: there are no experts to force".into()));
        }
        let shape = |experts: u16, top_k: u16| format!("{top_k} of {experts} experts per token");
        let find = |own: &MoeLayerSpec| {
            let found = self.layers.iter().position(|layer| layer.layer == own.layer);
            let wants =
                format!("layer {} of the model uses {}", own.layer, shape(own.experts, own.top_k));
            let Some(found) = found else {
                return Err(refuse(format!(
                    "{wants}, but the run has no such MoE layer; replay a run of the same model"
                )));
            };
            let layer = &self.layers[found];
            match (layer.experts, layer.top_k) == (own.experts, own.top_k) {
                true => Ok(found),
                false => Err(refuse(format!(
                    "{wants}, that of the run {}; replay a run of the same model",
                    shape(layer.experts, layer.top_k)
                ))),
            }
        };
        spec.moe.iter().map(find).collect()
    }
}

/// Experts of every row in one layer, `[T, K]`.
fn of_layer(
    routing: &RoutingTable,
    token_of_row: &[u32],
    row_of_token: &[usize],
    layer: &MoeLayer,
) -> Result<Vec<u16>, String> {
    let k = usize::from(layer.top_k);
    let mut experts = vec![0; row_of_token.len() * k];
    for (row, _) in routing.layer.iter().enumerate().filter(|(_, l)| **l == layer.layer) {
        let chosen = routing.experts_of(row);
        if chosen.len() != k {
            return Err(format!(
                "routing/ has {} experts for a token in layer {}, manifest.json says {k}",
                chosen.len(),
                layer.layer
            ));
        }
        let to = row_of_token[token_of_row[row] as usize] * k;
        experts[to..to + k].copy_from_slice(chosen);
    }
    Ok(experts)
}

/// Experts of a number of passes, on a device: everything is checked and uploaded before the first pass.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Layer indices of the model's MoE layers, in order.
    layers: Vec<u16>,
    /// Per pass and MoE layer.
    passes: Vec<Vec<ForcedExperts>>,
}

impl Replay {
    /// Prepares passes; each is given by the rows of its tokens, in the order of the ids `[B, S]`.
    ///
    /// # Errors
    ///
    /// As [`Recorded::check`]; [`RecordError::Replay`] for a pass without tokens or a row beyond the run,
    /// [`moescope_model::ModelError::Forced`] where the run's routing is not one (a token that has an expert twice).
    pub fn new(
        recorded: &Recorded,
        spec: &ModelSpec,
        device: &Device,
        passes: &[Vec<usize>],
    ) -> Result<Self> {
        let refuse = |reason: String| RecordError::Replay { path: recorded.path.clone(), reason };
        let rows = recorded.tokens.len();
        let sources = recorded.layers_of(spec)?;
        let prepare = |pass: &Vec<usize>| {
            if let Some(row) = pass.iter().find(|row| **row >= rows) {
                return Err(refuse(format!("token {row} was asked for; the run has {rows}")));
            }
            let layers = spec.moe.iter().zip(&sources);
            let experts = layers.map(|(layer, &source)| {
                let (k, all) = (usize::from(layer.top_k), &recorded.experts[source]);
                let ids = pass.iter().flat_map(|row| &all[row * k..(row + 1) * k]).copied();
                Ok(ForcedExperts::new(&ids.collect::<Vec<_>>(), layer, device)?)
            });
            experts.collect::<Result<Vec<_>>>()
        };
        Ok(Replay {
            layers: spec.moe.iter().map(|layer| layer.layer).collect(),
            passes: passes.iter().map(prepare).collect::<Result<_>>()?,
        })
    }

    /// An observer that forces the passes from `first` on, one per forward pass, and shows everything to
    /// `inner`. Passes beyond the last are left to the router.
    pub fn from<'a>(&'a self, first: usize, inner: &'a mut dyn Observer) -> Replaying<'a> {
        Replaying { replay: self, pass: first, inner }
    }
}

/// Forces the experts of a [`Replay`], pass after pass.
pub struct Replaying<'a> {
    replay: &'a Replay,
    pass: usize,
    inner: &'a mut dyn Observer,
}

impl Observer for Replaying<'_> {
    fn wants_output_norms(&self) -> bool {
        self.inner.wants_output_norms()
    }

    fn forced_experts(&mut self, layer: u16, _tokens: usize) -> Option<ForcedExperts> {
        // The pass itself checks that they are for as many tokens as it has.
        let slot = self.replay.layers.binary_search(&layer).ok()?;
        Some(self.replay.passes.get(self.pass)?[slot].clone())
    }

    fn embedded(&mut self, hidden: &Tensor<2>) {
        self.inner.embedded(hidden);
    }

    fn routed(&mut self, routing: Routing) {
        self.inner.routed(routing);
    }

    fn component_done(&mut self, layer: Option<u16>, component: Component) {
        self.inner.component_done(layer, component);
    }

    fn layer_done(&mut self, layer: u16, hidden: &Tensor<2>) {
        self.inner.layer_done(layer, hidden);
    }

    fn step_done(&mut self, normed: &Tensor<2>) {
        self.pass += 1;
        self.inner.step_done(normed);
    }
}

#[cfg(test)]
pub(crate) mod tests;
