//! The most resident memory of the process since a moment.

use crate::memory::Resident;

/// Watches resident memory. Linux keeps the peak itself and can be told to start anew; elsewhere it is
/// the largest of the values seen by [`PeakRss::look`].
pub(crate) struct PeakRss {
    kept: bool,
    resident: Resident,
    seen: Option<u64>,
}

impl PeakRss {
    /// Starts anew.
    pub(crate) fn start() -> Self {
        // 5 resets the peak (proc(5), clear_refs).
        let kept =
            cfg!(target_os = "linux") && std::fs::write("/proc/self/clear_refs", "5").is_ok();
        let mut peak = PeakRss { kept, resident: Resident::new(), seen: None };
        peak.look();
        peak
    }

    /// Looks at resident memory now.
    pub(crate) fn look(&mut self) {
        if !self.kept {
            self.seen = self.seen.max(self.resident.bytes());
        }
    }

    /// Bytes, where the platform tells.
    pub(crate) fn bytes(&mut self) -> Option<u64> {
        self.look();
        match self.kept {
            true => high_water(&std::fs::read_to_string("/proc/self/status").ok()?),
            false => self.seen,
        }
    }
}

/// `VmHWM` of a `/proc/PID/status`, in bytes.
fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn high_water_is_read() {
        assert_eq!(
            high_water("VmPeak:\t 9 kB\nVmHWM:\t   12 kB\nVmRSS:\t 8 kB\n"),
            Some(12 * 1024)
        );
        assert_eq!(high_water("VmRSS:\t 8 kB\n"), None);
    }

    /// A peak that is over is still seen, and forgotten by the next start. Other tests start anew at the same
    /// time, so one try in many has to show it.
    #[test]
    fn a_peak_is_kept_until_the_next_start() {
        const BLOCK: u64 = 64 << 20;
        let attempt = || {
            let mut peak = PeakRss::start();
            let before = peak.bytes();
            let block = std::hint::black_box(vec![1u8; BLOCK as usize]);
            peak.look();
            drop(block);
            let (before, after) = before.zip(peak.bytes())?;
            let anew = PeakRss::start().bytes().filter(|_| peak.kept).unwrap_or(before);
            Some(after >= before + BLOCK / 2 && anew < after)
        };
        assert!((0..50).any(|_| attempt() != Some(false)));
    }
}
