//! The card a device is, so that what is read about a GPU is read about the one that is measured.

use std::path::PathBuf;

use burn::tensor::Device;
use moescope_trace::manifest::{DeviceInfo, DeviceType};

use super::sysfs::{Roots, entries, name, word};

/// NVIDIA's PCI vendor id.
const NVIDIA: u32 = 0x10de;

/// A GPU on the PCI bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its address, as `0000:07:00.0`.
    pub address: String,
    /// PCI vendor id.
    pub vendor: u32,
}

impl Card {
    /// The card behind a device. `None` for processors and software adapters, and where the driver does not
    /// tell the card's address and several cards in the machine could be meant.
    pub fn of(device: &Device, info: &DeviceInfo, roots: &Roots) -> Option<Card> {
        if matches!(info.device_type, DeviceType::Cpu | DeviceType::Software) {
            return None;
        }
        let physical = device.identity().and_then(|identity| identity.physical);
        let address = physical.and_then(|card| card.pci_address).map(|address| address.to_string());
        Self::find(address, info, roots)
    }

    /// As [`Card::of`]; `address` is what the driver tells.
    pub(crate) fn find(address: Option<String>, info: &DeviceInfo, roots: &Roots) -> Option<Card> {
        let vendor = info.vendor_id?;
        if let Some(address) = address {
            return Some(Card { address, vendor });
        }
        let id = |path: &PathBuf, file: &str| {
            let text = word(&path.join(file))?;
            u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
        };
        let same = |path: &PathBuf| {
            id(path, "vendor") == Some(vendor) && id(path, "device") == info.device_id
        };
        let found = entries(&roots.sys.join("bus/pci/devices")).into_iter().filter(same);
        match &found.collect::<Vec<_>>()[..] {
            [one] => Some(Card { address: name(one).to_owned(), vendor }),
            _ => None,
        }
    }

    /// Whether NVIDIA's driver answers for it.
    pub(crate) fn is_nvidia(&self) -> bool {
        self.vendor == NVIDIA
    }

    /// Its folder in sysfs.
    pub(crate) fn folder(&self, roots: &Roots) -> PathBuf {
        roots.sys.join("bus/pci/devices").join(&self.address)
    }

    /// Folders of its sensors.
    pub(crate) fn sensors(&self, roots: &Roots) -> Vec<PathBuf> {
        entries(&self.folder(roots).join("hwmon"))
    }
}
