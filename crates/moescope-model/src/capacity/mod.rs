//! What a device can hold, and whether a model fits it: known before anything is read.
//!
//! Graphics APIs tell how large a buffer may be, but seldom how much memory there is. What is known is
//! used: free memory of the host for the CPU and for GPUs that share it, NVIDIA's management library, the
//! kernel's figures for AMD cards, or what `--memory-limit` says. Where nothing is known, memory
//! is not checked, and who asks is told so.

mod card;
mod fit;
mod host;
mod large;

use std::fmt;

use burn::{backend::DispatchDevice, tensor::Device};
use serde::{Serialize, Serializer};

pub use fit::{Demand, DoesNotFit, Fit, Needed, Room};
pub use large::Large;

use crate::{
    device::{Adapter, AdapterType},
    dtype::DType,
};

/// What a device can hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Capacity {
    /// Memory for weights, cache and activations together; `None` is not known.
    pub memory: Option<Memory>,
    /// Bytes of one tensor at most: the largest buffer that can be bound. `None` is no limit.
    pub tensor: Option<u64>,
    /// Types it can hold weights in.
    pub dtypes: DTypes,
}

/// Types of weights a device computes with: f32 and perhaps half as long ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DTypes {
    /// IEEE half precision.
    pub f16: bool,
    /// bfloat16.
    pub bf16: bool,
}

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Bytes.
    pub bytes: u64,
    /// Whose.
    pub of: MemoryOf,
}

/// Where a figure of memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryOf {
    /// `--memory-limit`.
    Asked,
    /// Free in the host's memory.
    Host,
    /// Free in the card's memory.
    Card,
}

impl Capacity {
    /// What is known of an open device. Whether a GPU shares the host's memory its adapter tells
    /// ([`Capacity::of_adapter`]); here, what the GPU states as its own counts.
    pub fn of(device: &Device) -> Self {
        let (tensor, dtypes) = (tensor_limit(device), DTypes::of(device));
        let DispatchDevice::Cube(cube) = device.as_dispatch() else {
            return Capacity { memory: host::free(), tensor, dtypes };
        };
        let client = cube.client();
        let properties = client.properties();
        let stated = properties.memory.max_memory().map(Memory::of_card);
        let memory = match properties.identity.physical.as_ref() {
            // No card: an emulation in the host's memory.
            None => host::free(),
            Some(physical) => physical.pci_address.and_then(card::free).or(stated),
        };
        Capacity { memory, tensor, dtypes }
    }

    /// What is known of an adapter.
    pub fn of_adapter(adapter: &Adapter) -> Self {
        let known = Self::of(&adapter.open());
        match adapter.device_type {
            // What such a GPU reports as its own is a share of the host's memory.
            AdapterType::Integrated | AdapterType::Software => {
                Capacity { memory: host::free(), ..known }
            }
            _ => known,
        }
    }

    /// The same with no more memory than asked for.
    pub fn limited(self, bytes: Option<u64>) -> Self {
        let asked = bytes.map(|bytes| Memory { bytes, of: MemoryOf::Asked });
        Capacity { memory: asked.or(self.memory), ..self }
    }
}

impl Default for DTypes {
    /// All.
    fn default() -> Self {
        DTypes { f16: true, bf16: true }
    }
}

impl DTypes {
    /// Those of a device.
    pub fn of(device: &Device) -> Self {
        let has = |dtype: DType| device.supports_dtype(dtype.burn());
        DTypes { f16: has(DType::F16), bf16: has(DType::Bf16) }
    }

    /// Whether weights can be held in a type.
    pub const fn has(self, dtype: DType) -> bool {
        match dtype {
            DType::F32 => true,
            DType::F16 => self.f16,
            DType::Bf16 => self.bf16,
        }
    }

    /// All of them, the longest first.
    pub fn iter(self) -> impl Iterator<Item = DType> {
        [DType::F32, DType::F16, DType::Bf16].into_iter().filter(move |dtype| self.has(*dtype))
    }
}

impl Serialize for DTypes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// Bytes of one tensor on a device at most; `None` is no limit.
pub fn tensor_limit(device: &Device) -> Option<u64> {
    match device.as_dispatch() {
        DispatchDevice::Cube(cube) => Some(cube.client().properties().memory.max_page_size),
        _ => None,
    }
}

impl Memory {
    fn of_card(bytes: u64) -> Self {
        Memory { bytes, of: MemoryOf::Card }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match self.of {
            MemoryOf::Asked => "allowed by --memory-limit",
            MemoryOf::Host => "free in the memory of this machine",
            MemoryOf::Card => "free in the memory of the GPU",
        };
        write!(f, "{} {of}", bytes(self.bytes))
    }
}

/// Bytes in the largest binary unit that leaves at least one.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_memory_and_no_largest_tensor() {
        let capacity = Capacity::of(&Device::flex());
        assert_eq!(capacity.tensor, None);
        assert_eq!(capacity.dtypes, DTypes::default());
        let memory = capacity.memory.unwrap();
        assert_eq!(memory.of, MemoryOf::Host);
        assert!(memory.bytes > 1 << 28, "{memory}");
        let limited = capacity.limited(Some(1000)).memory.unwrap();
        assert_eq!((limited.bytes, limited.of), (1000, MemoryOf::Asked));
        assert_eq!(limited.to_string(), "1000 B allowed by --memory-limit");
    }
}
