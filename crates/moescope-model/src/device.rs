//! Devices: choosing one, describing it, checking what it can compute.

use std::{collections::BTreeMap, fmt, str::FromStr};

use burn::tensor::{Device, DeviceKind, wgpu::wgpu};
use serde::Serialize;

use crate::{
    dtype::DType,
    error::{ModelError, Result},
};

/// What `--device` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A hardware GPU through wgpu if there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Flex,
    /// An adapter of wgpu: the best one, or the one with this index in `moescope devices`.
    Wgpu(Option<usize>),
}

/// Kind of adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterType {
    /// The host's processor, through `flex`.
    Cpu,
    /// A GPU that shares the host's memory.
    Integrated,
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU of a virtual machine.
    Virtual,
    /// A GPU interface emulated on the processor.
    Software,
    /// Not known.
    Unknown,
}

/// A device and what is known about it.
#[derive(Clone, Debug, Serialize)]
pub struct Adapter {
    /// How to ask for it: `flex`, `wgpu:0`.
    pub option: String,
    /// Burn backend: `flex` or `wgpu`.
    pub backend: &'static str,
    /// Name.
    pub name: String,
    /// Graphics API, such as `vulkan`; empty on the CPU.
    pub api: String,
    /// Driver.
    pub driver: Option<String>,
    /// Driver version or build.
    pub driver_version: Option<String>,
    /// PCI vendor.
    pub vendor_id: Option<u32>,
    /// PCI device.
    pub device_id: Option<u32>,
    /// Kind.
    pub device_type: AdapterType,
    /// Limits by name, bytes.
    pub limits: BTreeMap<String, u64>,
    #[serde(skip)]
    kind: Option<DeviceKind>,
}

impl Adapter {
    /// Opens the device.
    pub fn open(&self) -> Device {
        match &self.kind {
            None => Device::flex(),
            Some(kind) => Device::wgpu(kind.clone()),
        }
    }

    fn is_hardware_gpu(&self) -> bool {
        use AdapterType::{Discrete, Integrated, Virtual};
        matches!(self.device_type, Discrete | Integrated | Virtual)
    }
}

/// The CPU, then every adapter of wgpu.
pub fn adapters() -> Vec<Adapter> {
    let mut list = vec![cpu()];
    list.extend(wgpu_adapters());
    list
}

/// The adapter a choice means, and a note for the user where the choice was made for them.
///
/// # Errors
///
/// [`ModelError::Device`] where there is no such adapter.
pub fn choose(choice: DeviceChoice) -> Result<(Adapter, Option<String>)> {
    if choice == DeviceChoice::Flex {
        return Ok((cpu(), None));
    }
    let gpus = wgpu_adapters();
    let none = |reason: String| ModelError::Device { asked: choice.to_string(), reason };
    match choice {
        DeviceChoice::Flex => Ok((cpu(), None)),
        DeviceChoice::Auto => match gpus.iter().find(|a| a.is_hardware_gpu()) {
            Some(gpu) => Ok((gpu.clone(), Some(format!("using {}", gpu.name)))),
            None if gpus.is_empty() => {
                Ok((cpu(), Some("no GPU adapter found; using the CPU (flex)".into())))
            }
            None => Ok((
                cpu(),
                Some(format!(
                    "the only adapter is {}, an emulation far slower than the CPU itself; \
                     using the CPU (flex); `--device wgpu` insists",
                    gpus[0].name
                )),
            )),
        },
        DeviceChoice::Wgpu(index) => {
            let gpu = match index {
                None => gpus.iter().find(|a| a.is_hardware_gpu()).or(gpus.first()),
                Some(index) => gpus.get(index),
            };
            match gpu {
                Some(gpu) => Ok((gpu.clone(), None)),
                None if gpus.is_empty() => Err(none(
                    "no wgpu adapter found; install a GPU driver, or on Debian and Ubuntu the \
                     software driver: apt-get install mesa-vulkan-drivers libvulkan1"
                        .into(),
                )),
                None => Err(none(format!(
                    "there are {} adapters, numbered from 0; see `moescope devices`",
                    gpus.len()
                ))),
            }
        }
    }
}

/// Refuses a compute type the device can't use.
///
/// # Errors
///
/// [`ModelError::DType`].
pub fn check_dtype(device: &Device, dtype: DType) -> Result<()> {
    match device.supports_dtype(dtype.burn()) {
        true => Ok(()),
        false => Err(ModelError::DType {
            dtype: dtype.to_string(),
            device: device.identity().map_or_else(|| "the CPU (flex)".into(), |id| id.name),
            instead: "f32",
        }),
    }
}

fn cpu() -> Adapter {
    Adapter {
        option: "flex".into(),
        backend: "flex",
        name: "CPU".into(),
        api: String::new(),
        driver: None,
        driver_version: None,
        vendor_id: None,
        device_id: None,
        device_type: AdapterType::Cpu,
        limits: BTreeMap::new(),
        kind: None,
    }
}

/// Adapters of the graphics API that Burn picks by itself: the first that reaches a hardware GPU, else
/// the first that reaches anything. Their order within each kind is the one Burn counts in.
///
/// OpenGL, which can do least, is asked last and only where nothing else answers.
fn wgpu_adapters() -> Vec<Adapter> {
    let apis = [wgpu::Backends::VULKAN, wgpu::Backends::METAL, wgpu::Backends::DX12];
    let mut lists: Vec<Vec<Adapter>> = apis.into_iter().map(adapters_of).collect();
    let best = lists
        .iter()
        .position(|list| list.iter().any(Adapter::is_hardware_gpu))
        .or_else(|| lists.iter().position(|list| !list.is_empty()));
    match best {
        Some(best) => lists.swap_remove(best),
        None => adapters_of(wgpu::Backends::GL),
    }
}

fn adapters_of(api: wgpu::Backends) -> Vec<Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: api,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let found = cubecl::future::block_on(instance.enumerate_adapters(api));
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut list = Vec::new();
    for adapter in found {
        let info = adapter.get_info();
        let mut next = |kind| {
            let count = counts.entry(kind).or_default();
            *count += 1;
            *count - 1
        };
        let (device_type, kind) = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => {
                (AdapterType::Discrete, DeviceKind::DiscreteGpu(next("discrete")))
            }
            wgpu::DeviceType::IntegratedGpu => {
                (AdapterType::Integrated, DeviceKind::IntegratedGpu(next("integrated")))
            }
            wgpu::DeviceType::VirtualGpu => {
                (AdapterType::Virtual, DeviceKind::VirtualGpu(next("virtual")))
            }
            wgpu::DeviceType::Cpu => (AdapterType::Software, DeviceKind::Cpu),
            wgpu::DeviceType::Other => (AdapterType::Unknown, DeviceKind::DefaultDevice),
        };
        let limits = adapter.limits();
        list.push(Adapter {
            option: format!("wgpu:{}", list.len()),
            backend: "wgpu",
            name: info.name.clone(),
            api: info.backend.to_string(),
            driver: Some(info.driver).filter(|s| !s.is_empty()),
            driver_version: Some(info.driver_info).filter(|s| !s.is_empty()),
            vendor_id: Some(info.vendor),
            device_id: Some(info.device),
            device_type,
            limits: BTreeMap::from([
                ("max_buffer_size".into(), limits.max_buffer_size),
                ("max_storage_buffer_binding_size".into(), limits.max_storage_buffer_binding_size),
            ]),
            kind: Some(kind),
        });
    }
    list
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Flex => f.write_str("flex"),
            DeviceChoice::Wgpu(None) => f.write_str("wgpu"),
            DeviceChoice::Wgpu(Some(index)) => write!(f, "wgpu:{index}"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || format!("unknown device {s:?}; expected auto, flex, wgpu or wgpu:N");
        match s.split_once(':') {
            None => match s {
                "auto" => Ok(DeviceChoice::Auto),
                "flex" | "cpu" => Ok(DeviceChoice::Flex),
                "wgpu" | "gpu" => Ok(DeviceChoice::Wgpu(None)),
                _ => Err(wrong()),
            },
            Some(("wgpu", index)) => {
                index.parse().map(|i| DeviceChoice::Wgpu(Some(i))).map_err(|_| wrong())
            }
            Some(_) => Err(wrong()),
        }
    }
}
