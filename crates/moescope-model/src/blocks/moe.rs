//! The Mixture-of-Experts block: router, routed experts, experts every token uses.

use burn::tensor::{Int, Tensor};

use super::{
    decoder::Pass,
    mlp::{Mlp, MlpShape},
    tensors::{Tensors, Weights},
};
use crate::{
    error::Result,
    observer::{Component, Routing},
    ops::{
        activation::Activation,
        experts::{Experts, MoeImpl},
        linear::Linear,
        router::{Choice, PerExpert, RouterRule, route_to},
    },
    spec::{MoeLayerSpec, Part},
};

/// What a config says about a Mixture-of-Experts block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MoeShape {
    /// Width of the residual stream, H.
    pub(crate) hidden: usize,
    /// Routed experts, E.
    pub(crate) experts: usize,
    /// Width of an expert, I.
    pub(crate) inner: usize,
    /// Applied to the gate of an expert.
    pub(crate) activation: Activation,
    /// How experts are chosen.
    pub(crate) rule: RouterRule,
    /// Whether `gate.e_score_correction_bias` is added to scores for the choice.
    pub(crate) correction: bool,
    /// Experts every token uses; together they are one feed-forward block.
    pub(crate) shared: Option<SharedShape>,
    /// What the family calls them.
    pub(crate) names: ExpertNames,
}

/// Experts every token uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedShape {
    /// How many.
    pub(crate) count: usize,
    /// Their width in all.
    pub(crate) inner: usize,
}

/// Names of an expert's projections, below `experts.EXPERT.`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExpertNames {
    pub(crate) gate: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
}

impl ExpertNames {
    /// Those of most families.
    pub(crate) const PROJ: ExpertNames =
        ExpertNames { gate: "gate_proj.weight", up: "up_proj.weight", down: "down_proj.weight" };
}

const CORRECTION: &str = "gate.e_score_correction_bias";

impl MoeShape {
    /// The block as the rest of the crate sees it.
    pub(crate) fn spec(&self, layer: usize) -> MoeLayerSpec {
        MoeLayerSpec {
            layer: layer as u16,
            experts: self.experts as u16,
            top_k: self.rule.top_k as u16,
            shared_experts: self.shared.map_or(0, |shared| shared.count as u16),
        }
    }

    /// Adds its tensors.
    pub(crate) fn declare(&self, tensors: &mut Tensors) {
        tensors.add("gate.weight", &[self.experts, self.hidden], Part::Router);
        if self.correction {
            tensors.add(CORRECTION, &[self.experts], Part::Router);
        }
        for expert in 0..self.experts {
            tensors.within(&format!("experts.{expert}"), |tensors| {
                tensors.add(self.names.gate, &[self.inner, self.hidden], Part::Experts);
                tensors.add(self.names.up, &[self.inner, self.hidden], Part::Experts);
                tensors.add(self.names.down, &[self.hidden, self.inner], Part::Experts);
            });
        }
        if let Some(shared) = self.shared_mlp() {
            tensors.within("shared_experts", |t| shared.declare(t, Part::SharedExperts));
        }
    }

    /// Loads it: the tensors of single experts become one per layer.
    ///
    /// # Errors
    ///
    /// As [`crate::checkpoint::Loader::weight`].
    pub(crate) fn load(
        &self,
        w: &Weights<'_>,
        layer: usize,
        implementation: MoeImpl,
    ) -> Result<Moe> {
        let halves = [(self.names.gate, self.inner), (self.names.up, self.inner)];
        let experts = Experts {
            gate_up: w.experts(self.experts, &halves, self.hidden)?,
            down: w.experts(self.experts, &[(self.names.down, self.hidden)], self.inner)?,
            biases: None,
            activation: self.activation,
        };
        Ok(Moe {
            router: Router {
                projection: Linear::new(w.exact("gate.weight", [self.experts, self.hidden])?),
                correction: match self.correction {
                    true => Some(w.exact(CORRECTION, [self.experts])?),
                    false => None,
                },
                rule: self.rule,
            },
            routed: Routed { spec: self.spec(layer), experts, implementation },
            shared: match self.shared_mlp() {
                Some(shared) => Some(shared.load(&w.within("shared_experts"))?),
                None => None,
            },
        })
    }

    fn shared_mlp(&self) -> Option<MlpShape> {
        let (hidden, activation) = (self.hidden, self.activation);
        self.shared.map(|shared| MlpShape { hidden, inner: shared.inner, activation })
    }
}

/// A Mixture-of-Experts block.
pub(crate) struct Moe {
    pub(crate) router: Router,
    pub(crate) routed: Routed,
    pub(crate) shared: Option<Mlp>,
}

impl Moe {
    /// `[T, H] -> [T, H]`, of normalised rows.
    pub(crate) fn forward(&self, x: Tensor<2>, pass: &mut Pass<'_>) -> Tensor<2> {
        let forced = pass.forced_experts(&self.routed.spec);
        let choice = self.router.forward(x.clone(), forced);
        pass.observer.component_done(Some(self.routed.spec.layer), Component::Router);
        let routed = self.routed.forward(x.clone(), choice, pass);
        let Some(shared) = &self.shared else { return routed };
        let sum = routed + shared.forward(x);
        pass.observer.component_done(Some(self.routed.spec.layer), Component::Mlp);
        sum
    }
}

/// A projection to one logit per expert, and what is made of it.
pub(crate) struct Router {
    /// `[E, H]`, f32: which experts run must not depend on the compute type.
    pub(crate) projection: Linear,
    /// `[E]`, added to scores for the choice.
    pub(crate) correction: Option<Tensor<1>>,
    pub(crate) rule: RouterRule,
}

impl Router {
    fn forward(&self, x: Tensor<2>, forced: Option<Tensor<2, Int>>) -> Choice {
        let correction = self.correction.as_ref();
        let per_expert = PerExpert { correction, ..PerExpert::default() };
        route_to(self.projection.forward(x), self.rule, per_expert, forced)
    }
}

/// Routed experts of a layer: run, and shown to who watches.
pub(crate) struct Routed {
    /// The layer they are in, and how many there are.
    pub(crate) spec: MoeLayerSpec,
    pub(crate) experts: Experts,
    pub(crate) implementation: MoeImpl,
}

impl Routed {
    /// The weighted sum of the chosen experts' outputs: `[T, H] -> [T, H]`.
    pub(crate) fn forward(&self, x: Tensor<2>, choice: Choice, pass: &mut Pass<'_>) -> Tensor<2> {
        let norms = pass.observer.wants_output_norms();
        let mixture = self.experts.forward(x, &choice, self.implementation, norms);
        pass.observer.component_done(Some(self.spec.layer), Component::Experts);
        pass.observer.routed(Routing::of(self.spec.layer, choice, mixture.output_norms));
        mixture.sum
    }
}
