//! NVIDIA's management library, loaded where it is installed.

use nvml_wrapper::{Nvml, enum_wrappers::device::Clock, error::NvmlError};

use super::{Card, gpu::GpuState};

/// The library, and the card it is asked about.
pub(crate) struct Nvidia {
    nvml: Nvml,
    address: String,
}

impl Nvidia {
    /// Loads the library; the error says why it can't be, or does not know the card.
    pub(crate) fn open(card: &Card) -> Result<Self, String> {
        let nvml = Nvml::init().map_err(|e| words(&e))?;
        nvml.device_by_pci_bus_id(&*card.address).map_err(|e| words(&e))?;
        Ok(Nvidia { nvml, address: card.address.clone() })
    }

    /// Graphics clock and performance state now.
    pub(crate) fn state(&self) -> GpuState {
        // A handle borrows the library, so it is looked up each time.
        let Ok(device) = self.nvml.device_by_pci_bus_id(&*self.address) else {
            return GpuState::default();
        };
        // P0 is the fastest; the driver counts them from 0.
        let state = device.performance_state().ok().map(|state| state.as_c());
        GpuState {
            mhz: device.clock_info(Clock::Graphics).ok().map(f64::from),
            state: state.filter(|state| *state <= 15).map(|state| format!("P{state}")),
        }
    }

    /// Millijoules used since the driver was loaded; Volta and newer.
    pub(crate) fn millijoules(&self) -> Result<u64, String> {
        let device = self.nvml.device_by_pci_bus_id(&*self.address).map_err(|e| words(&e))?;
        device.total_energy_consumption().map_err(|e| words(&e))
    }
}

fn words(error: &NvmlError) -> String {
    format!("NVML: {error}")
}
