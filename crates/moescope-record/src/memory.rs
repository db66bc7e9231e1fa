//! Memory in use: the device's pools and the process.

use std::time::{Duration, Instant};

use burn::tensor::Device;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// Resident memory is asked for no more often than this: a system call would weigh on short steps.
const RSS_EVERY: Duration = Duration::from_millis(50);

/// Bytes held at one moment. `None` where the platform does not report them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// In use in the device's pools.
    pub bytes_in_use: Option<u64>,
    /// Held by the device's pools.
    pub bytes_reserved: Option<u64>,
    /// Resident memory of the process; also `None` between two samples, which are at least 50 ms apart.
    pub rss_bytes: Option<u64>,
}

/// Reads memory use after steps.
pub struct MemoryMeter {
    device: Device,
    resident: Resident,
    last: Option<Instant>,
}

impl MemoryMeter {
    /// A meter for this process and a device.
    pub fn new(device: &Device) -> Self {
        MemoryMeter { device: device.clone(), resident: Resident::new(), last: None }
    }

    /// Memory use now.
    pub fn read(&mut self) -> MemoryUse {
        let due = self.last.is_none_or(|last| last.elapsed() >= RSS_EVERY);
        if due {
            self.last = Some(Instant::now());
        }
        let rss_bytes = if due { self.resident.bytes() } else { None };
        MemoryUse { rss_bytes, ..self.pools() }
    }

    /// What the device's pools hold now.
    pub fn pools(&self) -> MemoryUse {
        let pools = self.device.memory_pool_usage();
        MemoryUse {
            bytes_in_use: pools.as_ref().map(|p| p.bytes_in_use),
            bytes_reserved: pools.as_ref().map(|p| p.bytes_reserved),
            rss_bytes: None,
        }
    }
}

/// Resident memory of this process.
pub(crate) struct Resident {
    system: Option<System>,
    pid: Option<Pid>,
}

impl Resident {
    pub(crate) fn new() -> Self {
        Resident { system: System::new().ok(), pid: sysinfo::get_current_pid().ok() }
    }

    /// Bytes now, where the platform tells.
    pub(crate) fn bytes(&mut self) -> Option<u64> {
        let (pid, system) = (self.pid?, self.system.as_mut()?);
        system.refresh_processes_specifics(
            ProcessesToUpdate::Some(&[pid]),
            false,
            ProcessRefreshKind::nothing().with_memory(),
        );
        system.process(pid).map(sysinfo::Process::memory)
    }
}
