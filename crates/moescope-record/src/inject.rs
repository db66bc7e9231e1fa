//! Faults put into a forward pass on purpose, to test that the gate finds them.
//!
//! Hidden options of `run` and `bench` reach this, and the harness of the gate (`benches/benches/gate_trust.rs`).
//! What was injected is part of the manifest and of the fingerprint ([`Injected`]) and is a label wherever
//! numbers are shown.

use std::{
    hint::spin_loop,
    time::{Duration, Instant},
};

use burn::tensor::{Device, Int, Tensor};
use moescope_model::{
    Component, ForcedExperts, KvCache, LogitsFor, ModelSpec, MoeLayerSpec, MoeModel, Observer,
    Result, Routing,
};
use moescope_trace::manifest::Injected;

/// The model with `faults` in every forward pass; the model itself where there are none.
pub fn inject(model: Box<dyn MoeModel>, faults: Option<Injected>) -> Box<dyn MoeModel> {
    match faults {
        Some(faults) => Box::new(Faulty { model, faults }),
        None => model,
    }
}

struct Faulty {
    model: Box<dyn MoeModel>,
    faults: Injected,
}

impl MoeModel for Faulty {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    fn device(&self) -> &Device {
        self.model.device()
    }

    fn forward(
        &self,
        ids: Tensor<2, Int>,
        cache: &mut KvCache,
        observer: &mut dyn Observer,
        logits: LogitsFor,
    ) -> Result<Tensor<2>> {
        let start = Instant::now();
        let out = match self.faults.routing && cache.len().is_multiple_of(EVERY) {
            true => {
                let mut astray = Astray { observer, spec: self.spec(), device: self.device() };
                self.model.forward(ids, cache, &mut astray, logits)?
            }
            false => self.model.forward(ids, cache, observer, logits)?,
        };
        if self.faults.slowdown_percent > 0.0 {
            // A device that fails says so again to the caller, who synchronises too.
            let _ = self.model.device().sync();
            wait(start.elapsed().mul_f64(self.faults.slowdown_percent / 100.0));
        }
        Ok(out)
    }

    fn head(&self, normed: Tensor<2>) -> Tensor<2> {
        self.model.head(normed)
    }
}

/// One pass in so many is sent astray: those whose tokens follow a multiple of it.
const EVERY: usize = 4;

/// An observer that sends the tokens of a pass to other experts in the last MoE layer, and shows everything to
/// the observer it stands before.
struct Astray<'a> {
    observer: &'a mut dyn Observer,
    spec: &'a ModelSpec,
    device: &'a Device,
}

impl Observer for Astray<'_> {
    fn wants_output_norms(&self) -> bool {
        self.observer.wants_output_norms()
    }

    fn forced_experts(&mut self, layer: u16, tokens: usize) -> Option<ForcedExperts> {
        let last = self.spec.moe.last().filter(|moe| moe.layer == layer);
        match last {
            // In turns, whatever the router says. Sizes come from the spec, so that nothing is refused.
            Some(moe) => ForcedExperts::new(&in_turns(moe, tokens), moe, self.device).ok(),
            None => self.observer.forced_experts(layer, tokens),
        }
    }

    fn embedded(&mut self, hidden: &Tensor<2>) {
        self.observer.embedded(hidden);
    }

    fn routed(&mut self, routing: Routing) {
        self.observer.routed(routing);
    }

    fn component_done(&mut self, layer: Option<u16>, component: Component) {
        self.observer.component_done(layer, component);
    }

    fn layer_done(&mut self, layer: u16, hidden: &Tensor<2>) {
        self.observer.layer_done(layer, hidden);
    }

    fn step_done(&mut self, normed: &Tensor<2>) {
        self.observer.step_done(normed);
    }
}

/// K neighbouring experts for each token, those of the next token after them: `[T, K]`.
fn in_turns(moe: &MoeLayerSpec, tokens: usize) -> Vec<u16> {
    let (experts, top_k) = (u32::from(moe.experts), u32::from(moe.top_k));
    let slots = 0..tokens as u32 * top_k;
    slots.map(|slot| (slot % experts) as u16).collect()
}

/// Keeps a core busy: a sleep would be longer than asked for by more than a short pass takes.
fn wait(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        spin_loop();
    }
}
