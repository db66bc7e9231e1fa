//! The machine a measurement is made on, as far as it tells: for the fingerprint of a result.
//!
//! Whatever can't be read is `None`, never an error: a fingerprint says what is known.

pub mod autotune;
mod card;
mod cpu;
mod gpu;
pub(crate) mod nvidia;
mod power;
pub(crate) mod sysfs;

#[cfg(test)]
pub(crate) mod tests;

use burn::tensor::Device;
use moescope_trace::fingerprint::{Autotune, Fingerprint, MachineState};

pub use self::{card::Card, sysfs::Roots};
use crate::conditions::{Subject, device_info, host_info};

/// The fingerprint of a measurement that starts now; `device` is where the model's weights are.
///
/// Variants chosen by autotune are not known before they are needed: [`autotune::Decisions`] adds them at the
/// end.
pub fn fingerprint(subject: &Subject<'_>, device: &Device, roots: &Roots) -> Fingerprint {
    let info = device_info(subject.adapter);
    let card = Card::of(device, &info, roots);
    Fingerprint {
        model: subject.model_info(),
        moe: subject.moe_shape(),
        moe_impl: subject.moe_impl.to_string(),
        state: machine_state(card.as_ref(), roots),
        autotune: Autotune { level: autotune::level(device), decisions: Vec::new() },
        device: info,
        host: host_info(),
        moescope_version: subject.version.to_owned(),
        git_commit: subject.commit.map(str::to_owned),
    }
}

/// Clocks, power and load now; `card` is the GPU that is measured, if one is.
pub fn machine_state(card: Option<&Card>, roots: &Roots) -> MachineState {
    let gpu = card.map(|card| gpu::state(card, roots)).unwrap_or_default();
    MachineState {
        cpu_governor: cpu::governor(roots),
        cpu_mhz: cpu::mhz(roots),
        power_source: power::source(roots).map(str::to_owned),
        load_average: cpu::load_average(roots),
        gpu_mhz: gpu.mhz,
        gpu_state: gpu.state,
    }
}
