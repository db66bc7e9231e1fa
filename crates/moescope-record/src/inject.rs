//! Faults put into a forward pass on purpose, to test that the gate finds them.
//!
//! Hidden options of `run` and `bench` reach this, and the harness of the gate (`benches/benches/gate_trust`).
//! What was injected is part of the manifest and of the fingerprint ([`Injected`]) and is a label wherever
//! numbers are shown.

use std::{
    collections::HashMap,
    hint::black_box,
    sync::Mutex,
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
    let slow = (faults.slowdown_percent > 0.0).then(|| Slow::by(faults.slowdown_percent / 100.0));
    Box::new(Faulty { model, slow, routing: faults.routing })
}

struct Faulty {
    model: Box<dyn MoeModel>,
    slow: Option<Slow>,
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
        let kind = (ids.shape().num_elements(), cache.len());
        let start = Instant::now();
        let out = match self.routing && cache.len().is_multiple_of(EVERY) {
            true => {
                let mut astray = Astray { observer, spec: self.spec(), device: self.device() };
                self.model.forward(ids, cache, &mut astray, logits)?
            }
            false => self.model.forward(ids, cache, observer, logits)?,
        };
        if let Some(slow) = &self.slow {
            // A device that fails says so again to the caller, who synchronises too.
            let _ = self.model.device().sync();
            slow.follow(kind, start.elapsed());
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

/// Work that follows every pass and takes a share of its time.
///
/// It is counted in turns of a loop, not in time: on a machine that does other things too it then takes
/// longer by as much as the pass does, as slower code would. A time waited for would be longer by more.
struct Slow {
    share: f64,
    turns_per_ns: f64,
    /// By tokens of the pass and tokens before them.
    fastest: Mutex<HashMap<(usize, usize), Duration>>,
}

/// A pass that took longer than the fastest of its kind by this factor was interrupted: its time is no measure of
/// its work.
const INTERRUPTED: f64 = 1.3;

impl Slow {
    fn by(share: f64) -> Self {
        const TURNS: u64 = 20_000;
        let once = || {
            let start = Instant::now();
            work(TURNS);
            start.elapsed()
        };
        let fastest = (0..200).map(|_| once()).min().unwrap_or_default();
        let turns_per_ns = TURNS as f64 / (fastest.as_nanos() as f64).max(1.0);
        Self { share, turns_per_ns, fastest: Mutex::default() }
    }

    /// Works for the share of a pass that took `time`.
    fn follow(&self, kind: (usize, usize), time: Duration) {
        let usual = {
            // A thread that panicked here left a time that is as good as before.
            let mut all = self.fastest.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let fastest = all.entry(kind).or_insert(time);
            *fastest = time.min(*fastest);
            if time > fastest.mul_f64(INTERRUPTED) { *fastest } else { time }
        };
        work((usual.as_nanos() as f64 * self.share * self.turns_per_ns) as u64);
    }
}

/// Turns of a loop that does nothing and is not left out.
fn work(turns: u64) {
    for turn in 0..turns {
        black_box(turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The work takes its share of the time; a core whose other thread is busy is slower by up to a half.
    #[test]
    fn work_takes_its_share() {
        let _alone = crate::one_at_a_time();
        // The core may change its speed after the loop was timed: then it is timed anew.
        let mut seen = Vec::new();
        let held = (0..5).find_map(|_| {
            let slow = Slow::by(0.5);
            let once = || {
                let start = Instant::now();
                slow.follow((1, 0), Duration::from_millis(4));
                start.elapsed().as_secs_f64()
            };
            let fastest = (0..30).map(|_| once()).fold(f64::INFINITY, f64::min);
            seen.push(fastest);
            (0.001..0.004).contains(&fastest).then_some(slow)
        });
        let slow = held.unwrap_or_else(|| panic!("half of 4 ms took {seen:?} s"));
        // One that was interrupted counts as the fastest of its kind.
        slow.follow((1, 0), Duration::from_millis(400));
        assert_eq!(slow.fastest.lock().unwrap()[&(1, 0)], Duration::from_millis(4));
    }

    #[test]
    fn tokens_go_to_different_experts_in_turns() {
        let moe = MoeLayerSpec { layer: 3, experts: 5, top_k: 3, shared_experts: 0 };
        assert_eq!(in_turns(&moe, 3), [0, 1, 2, 3, 4, 0, 1, 2, 3]);
        assert!(ForcedExperts::new(&in_turns(&moe, 3), &moe, &Device::flex()).is_ok());
    }
}
