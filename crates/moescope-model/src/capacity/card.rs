//! Free memory of a card, by its place on the bus.

use burn::backend::cubecl::PciAddress;
use nvml_wrapper::Nvml;

use super::Memory;

/// What NVIDIA's management library or the kernel's driver for AMD cards says; nothing where neither is there.
pub(super) fn free(address: PciAddress) -> Option<Memory> {
    nvidia(address).or_else(|| amd(address)).map(Memory::of_card)
}

fn nvidia(address: PciAddress) -> Option<u64> {
    let nvml = Nvml::init().ok()?;
    let device = nvml.device_by_pci_bus_id(address.to_string()).ok()?;
    Some(device.memory_info().ok()?.free)
}

/// `amdgpu` on Linux: Documentation/gpu/amdgpu/driver-misc.rst, "Memory Usage".
fn amd(address: PciAddress) -> Option<u64> {
    let figure = |name: &str| -> Option<u64> {
        let path = format!("/sys/bus/pci/devices/{address}/mem_info_vram_{name}");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    figure("total")?.checked_sub(figure("used")?)
}
