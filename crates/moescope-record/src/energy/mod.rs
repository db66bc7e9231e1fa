//! Energy used by the device that is measured, where the platform counts it.
//!
//! | device | source | counts |
//! |---|---|---|
//! | NVIDIA GPU | `nvml` | the board: NVML's total energy counter, mJ (Volta and newer) |
//! | other GPU | `hwmon` | what its driver's sensor counts (`energy1_input`, uJ; i915 and xe), the card or the package |
//! | other GPU | `hwmon-sampled` | `power1_average` or `power1_input` (uW; amdgpu), read every 20 ms and integrated |
//! | CPU | `rapl` | all processor packages: RAPL's counters, uJ |
//!
//! A software adapter runs on the CPU, and so does an integrated GPU without a sensor: their packages are
//! counted. A package counts all that runs on it, other processes too; nothing is subtracted for what it uses
//! at rest. Where there is no counter of the device's own there is no number: energy is not estimated from
//! rated power.
//!
//! Kernels since 5.10 let only root read RAPL's counters (CVE-2020-8694): `chmod o+r` on the `energy_uj` files
//! below `/sys/class/powercap` opens them until the next start.

mod hwmon;
mod rapl;

#[cfg(test)]
mod tests;

use burn::tensor::Device;
use moescope_trace::{
    bench::EnergyMeter,
    manifest::{DeviceInfo, DeviceType},
};

use self::{
    hwmon::{Counter, Sampled},
    rapl::Rapl,
};
use crate::environment::{Card, Roots, nvidia::Nvidia};

/// Why there is no energy to be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no energy: {0}")]
pub struct NoMeter(String);

/// Counts the energy of one device from the moment it is opened.
pub struct Meter {
    source: Source,
}

enum Source {
    Nvml { nvidia: Box<Nvidia>, start: u64 },
    Hwmon(Counter),
    Sampled(Sampled),
    Rapl(Rapl),
}

/// A card's own sensor: a counter, or power that a thread samples.
fn sensor(card: &Card, roots: &Roots) -> Option<Source> {
    let counter = Counter::open(card, roots).map(Source::Hwmon);
    counter.or_else(|| Sampled::open(card, roots).map(Source::Sampled))
}

impl Meter {
    /// A meter for a device.
    ///
    /// # Errors
    ///
    /// [`NoMeter`] says why there is none.
    pub fn open(device: &Device, info: &DeviceInfo, roots: &Roots) -> Result<Self, NoMeter> {
        Self::of(Card::of(device, info, roots).as_ref(), info, roots)
    }

    fn of(card: Option<&Card>, info: &DeviceInfo, roots: &Roots) -> Result<Self, NoMeter> {
        let source = match (card, info.device_type) {
            (_, DeviceType::Cpu | DeviceType::Software) => Rapl::open(roots).map(Source::Rapl)?,
            (Some(card), _) if card.is_nvidia() => {
                let nvidia = Nvidia::open(card).map_err(NoMeter)?;
                let start = nvidia.millijoules().map_err(NoMeter)?;
                Source::Nvml { nvidia: nvidia.into(), start }
            }
            (Some(card), kind) => match sensor(card, roots) {
                Some(sensor) => sensor,
                None if kind == DeviceType::Integrated => Rapl::open(roots).map(Source::Rapl)?,
                None => {
                    let sensors = card.folder(roots).join("hwmon");
                    let reason = format!("no energy or power sensor in {}", sensors.display());
                    return Err(NoMeter(reason));
                }
            },
            (None, DeviceType::Integrated) => Rapl::open(roots).map(Source::Rapl)?,
            (None, _) => {
                let reason = "the driver does not tell which card of the machine the device is";
                return Err(NoMeter(reason.into()));
            }
        };
        Ok(Meter { source })
    }

    /// Where it counts: a word for a column (see the [module](self)).
    pub fn source(&self) -> &'static str {
        match &self.source {
            Source::Nvml { .. } => "nvml",
            Source::Hwmon(_) => "hwmon",
            Source::Sampled(_) => "hwmon-sampled",
            Source::Rapl(_) => "rapl",
        }
    }

    /// Its source and its steps, for a result.
    pub fn describe(&self) -> EnergyMeter {
        let step_ms = match &self.source {
            Source::Rapl(_) => 1,
            Source::Hwmon(_) | Source::Sampled(_) => 20,
            Source::Nvml { .. } => 100,
        };
        EnergyMeter { source: self.source().to_owned(), step_ns: step_ms * 1_000_000 }
    }

    /// Joules used since the meter was opened. `None` once the counter can't be read any more.
    ///
    /// Counters step ([`Meter::describe`]), so a difference of two readings is good to the power times that. Counters of RAPL wrap around; two readings may lie about half an hour apart at
    /// most.
    pub fn joules(&mut self) -> Option<f64> {
        match &mut self.source {
            Source::Nvml { nvidia, start } => {
                let used = nvidia.millijoules().ok()?.checked_sub(*start)?;
                Some(used as f64 / 1e3)
            }
            Source::Hwmon(counter) => counter.joules(),
            Source::Sampled(sampled) => sampled.joules(),
            Source::Rapl(rapl) => rapl.joules(),
        }
    }
}
