//! Times per component: a synchronisation after each, in runs that measure nothing else.

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use moescope_model::{Component, ForcedExperts, Observer, Routing};
use moescope_trace::columns::LayerColumns;

/// `layer` of components outside the layers.
const OUTSIDE: u16 = u16::MAX;

/// Passes everything on to another observer and takes the time of each component.
pub struct Profiler<'a> {
    inner: &'a mut dyn Observer,
    device: Device,
    step: u32,
    last: Instant,
    rows: &'a mut LayerColumns,
}

impl<'a> Profiler<'a> {
    /// Starts the clock for one forward pass.
    pub fn new(
        inner: &'a mut dyn Observer,
        device: &Device,
        step: u32,
        rows: &'a mut LayerColumns,
    ) -> Self {
        Profiler { inner, device: device.clone(), step, last: Instant::now(), rows }
    }
}

impl Observer for Profiler<'_> {
    fn wants_output_norms(&self) -> bool {
        self.inner.wants_output_norms()
    }

    fn forced_experts(&mut self, layer: u16, tokens: usize) -> Option<ForcedExperts> {
        self.inner.forced_experts(layer, tokens)
    }

    fn embedded(&mut self, hidden: &Tensor<2>) {
        self.inner.embedded(hidden);
    }

    fn routed(&mut self, routing: Routing) {
        self.inner.routed(routing);
    }

    fn component_done(&mut self, layer: Option<u16>, component: Component) {
        self.inner.component_done(layer, component);
        // A failed device shows in the step's own synchronisation, which is checked.
        let _ = self.device.sync();
        let now = Instant::now();
        self.rows.step.push(self.step);
        self.rows.layer.push(layer.unwrap_or(OUTSIDE));
        self.rows.component.push(component.as_str());
        self.rows.duration_ns.push((now - self.last).as_nanos() as u64);
        self.last = now;
    }

    fn layer_done(&mut self, layer: u16, hidden: &Tensor<2>) {
        self.inner.layer_done(layer, hidden);
    }

    fn step_done(&mut self, normed: &Tensor<2>) {
        self.inner.step_done(normed);
    }
}
