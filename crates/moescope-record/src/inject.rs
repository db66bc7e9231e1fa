//! Faults put into a forward pass on purpose, to test that the gate finds them.
//!
//! Hidden options of `run` and `bench` reach this, and the harness of the gate (`benches/benches/gate_trust`).
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
    let Some(faults) = faults else { return model };
    let slower_by = faults.slowdown_percent / 100.0;
    Box::new(Faulty { model, slower_by, routing: faults.routing })
}

struct Faulty {
    model: Box<dyn MoeModel>,
    slower_by: f64,
    routing: bool,
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
        let out = match self.routing && cache.len().is_multiple_of(EVERY) {
            true => {
                let mut astray = Astray { observer, spec: self.spec(), device: self.device() };
                self.model.forward(ids, cache, &mut astray, logits)?
            }
            false => self.model.forward(ids, cache, observer, logits)?,
        };
        if self.slower_by > 0.0 {
            // A device that fails says so again to the caller, who synchronises too.
            let _ = self.model.device().sync();
            follow(self.slower_by, start.elapsed());
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

/// Keeps the thread busy for a share of the time the pass before it took, so that every pass is longer by just
/// that share, on a quiet core and on one that is slowed down by others. (A loop of fixed length would be a smaller
/// share of a pass that is slowed down more than the loop is; a sleep is rounded up to the timer's steps.)
fn follow(share: f64, pass: Duration) {
    let (start, wait) = (Instant::now(), pass.mul_f64(share));
    while start.elapsed() < wait {
        spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_followed_by_its_share() {
        let once = || {
            let start = Instant::now();
            follow(0.5, Duration::from_millis(4));
            start.elapsed()
        };
        let fastest = (0..30).map(|_| once()).min().unwrap();
        let bounds = Duration::from_micros(2_000)..Duration::from_micros(2_200);
        assert!(bounds.contains(&fastest), "{fastest:?}");
    }

    #[test]
    fn tokens_go_to_different_experts_in_turns() {
        let moe = MoeLayerSpec { layer: 3, experts: 5, top_k: 3, shared_experts: 0 };
        assert_eq!(in_turns(&moe, 3), [0, 1, 2, 3, 4, 0, 1, 2, 3]);
        assert!(ForcedExperts::new(&in_turns(&moe, 3), &moe, &Device::flex()).is_ok());
    }
}
