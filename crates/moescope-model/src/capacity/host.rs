//! Free memory of the machine.

use sysinfo::{MemoryRefreshKind, System};

use super::{Memory, MemoryOf};

/// Bytes a process can still take: of the machine, or of its control group where that has less.
pub(super) fn free() -> Option<Memory> {
    let mut system = System::new().ok()?;
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let machine = system.available_memory();
    let group = system.cgroup_limits().filter(|group| group.total_memory < system.total_memory());
    // Pages of files that are cached count as used in a group, and can be given up.
    let bytes =
        group.map_or(machine, |group| group.total_memory.saturating_sub(group.rss).min(machine));
    // A system that does not tell says 0.
    (bytes > 0).then_some(Memory { bytes, of: MemoryOf::Host })
}
