//! From a hit rate to the speed of decoding with experts left in the host's memory. Predicted, not
//! measured: a model of bytes over bandwidths.
//!
//! One token reads the dense part of the model (attention, shared experts, router, head) and k
//! experts of each MoE layer from the device's memory. An expert that is not there comes over the
//! host link first; transfers and reading do not overlap, so the prediction errs on the slow side
//! for a runtime that prefetches:
//!
//! ```text
//! time per token = (dense + n * expert) / device bandwidth
//!                + n * (1 - hit rate) * (expert / link bandwidth + latency)
//! ```
//!
//! for n = the sum of k over MoE layers, all in bytes, bytes/s and seconds. Batch size 1, no
//! computation: decoding a single sequence is bound by memory. The key/value cache is part of
//! `dense`, if it is counted at all.

use moescope_trace::Manifest;

/// Bytes of a model as decoding reads them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelBytes {
    /// One routed expert, bytes.
    pub expert: f64,
    /// Everything that every token reads, bytes.
    pub dense: f64,
    /// Routed experts in all, E summed over layers.
    pub experts: usize,
    /// Experts per token, k summed over layers.
    pub selected: usize,
    /// MoE layers, L.
    pub layers: usize,
}

/// Where a model decodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Memory of the device, bytes.
    pub vram: f64,
    /// Of which not for weights (key/value cache, activations, the desktop), bytes.
    pub reserved: f64,
    /// Bandwidth at which the device reads its memory, bytes/s.
    pub device_bandwidth: f64,
    /// Bandwidth of the link from the host, bytes/s.
    pub link_bandwidth: f64,
    /// Time before the first byte of a transfer arrives, seconds.
    pub link_latency: f64,
    /// Bandwidth at which the host's processor reads its memory, bytes/s, where it could run experts
    /// itself.
    pub host_bandwidth: Option<f64>,
}

impl ModelBytes {
    /// From what a run says of its model; `None` where it does not say enough (imports, dense models).
    ///
    /// Parameters that one token does not use are those of experts it was not routed to, which gives
    /// the size of one; all layers' experts are taken to be of one size. The dense part counts the
    /// embedding in full, which is read in full only where it is also the head.
    pub fn of(manifest: &Manifest) -> Option<Self> {
        let (model, layers) = (&manifest.model, &manifest.moe.layers);
        let sum = |of: fn(&moescope_trace::manifest::MoeLayer) -> u16| -> usize {
            layers.iter().map(|layer| usize::from(of(layer))).sum()
        };
        let (experts, selected) = (sum(|layer| layer.experts), sum(|layer| layer.top_k));
        let idle = model.total_parameters.checked_sub(model.active_parameters)? as f64;
        if model.total_parameters == 0 || model.bytes == 0 || experts <= selected || idle <= 0.0 {
            return None;
        }
        let bytes_per_parameter = model.bytes as f64 / model.total_parameters as f64;
        let expert = idle / (experts - selected) as f64 * bytes_per_parameter;
        let dense = model.bytes as f64 - expert * experts as f64;
        (dense >= 0.0).then_some(Self { expert, dense, experts, selected, layers: layers.len() })
    }

    /// The whole model, bytes.
    pub fn total(&self) -> f64 {
        self.dense + self.expert * self.experts as f64
    }
}

/// What a machine makes of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    model: ModelBytes,
    machine: Machine,
}

impl Speed {
    /// A model on a machine.
    pub fn new(model: ModelBytes, machine: Machine) -> Self {
        Self { model, machine }
    }

    /// Experts that fit beside the dense part, over all layers; at most all of them. `None` where not
    /// even the dense part fits.
    pub fn experts_that_fit(&self) -> Option<usize> {
        let room = self.machine.vram - self.machine.reserved - self.model.dense;
        (room >= 0.0).then(|| ((room / self.model.expert) as usize).min(self.model.experts))
    }

    /// Seconds per token spent reading the device's memory.
    pub fn device_seconds(&self) -> f64 {
        (self.model.dense + self.model.selected as f64 * self.model.expert)
            / self.machine.device_bandwidth
    }

    /// Seconds it takes to bring one expert.
    pub fn transfer_seconds(&self) -> f64 {
        self.model.expert / self.machine.link_bandwidth + self.machine.link_latency
    }

    /// Predicted tokens per second at a hit rate in 0..=1.
    pub fn tokens_per_second(&self, hit_rate: f64) -> f64 {
        let missed = self.model.selected as f64 * (1.0 - hit_rate);
        1.0 / (self.device_seconds() + missed * self.transfer_seconds())
    }

    /// The hit rate from which the link costs less time than reading the device's memory does: above
    /// it, a faster link or a larger cache can at most double the speed. 0 where it always does.
    pub fn break_even(&self) -> f64 {
        let all = self.model.selected as f64 * self.transfer_seconds();
        (1.0 - self.device_seconds() / all).max(0.0)
    }

    /// The hit rate that a speed takes; `None` where no hit rate is enough.
    pub fn hit_rate_for(&self, tokens_per_second: f64) -> Option<f64> {
        let spare = 1.0 / tokens_per_second - self.device_seconds();
        let all = self.model.selected as f64 * self.transfer_seconds();
        (spare >= 0.0).then(|| (1.0 - spare / all).max(0.0))
    }

    /// The hit rate from which caching is faster than running all routed experts on the host's processor: 0
    /// where it always is, `None` where it never is or the host's bandwidth is not known.
    pub fn hit_rate_to_beat_host(&self) -> Option<f64> {
        self.hit_rate_for(self.on_host()?)
    }

    /// Predicted tokens per second without a cache: all routed experts run on the host's processor,
    /// the rest on the device. `None` where the host's bandwidth is not known.
    pub fn on_host(&self) -> Option<f64> {
        let experts = self.model.selected as f64 * self.model.expert;
        let device = self.model.dense / self.machine.device_bandwidth;
        Some(1.0 / (device + experts / self.machine.host_bandwidth?))
    }
}
