//! Governor, clock and load of the processor.

use super::sysfs::{Roots, number, text, word};

/// Frequency governor of the first core.
pub(super) fn governor(roots: &Roots) -> Option<String> {
    word(&roots.sys.join("devices/system/cpu/cpu0/cpufreq/scaling_governor"))
}

/// Clock of the first core, MHz: from cpufreq (kHz), or as `/proc/cpuinfo` has it where cpufreq is not shown,
/// as in virtual machines.
pub(super) fn mhz(roots: &Roots) -> Option<f64> {
    let cpufreq = number(&roots.sys.join("devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"));
    let khz = cpufreq.filter(|&khz| khz > 0).map(|khz| khz as f64 / 1000.0);
    khz.or_else(|| {
        let info = text(&roots.proc.join("cpuinfo"))?;
        let line = info.lines().find(|line| line.starts_with("cpu MHz"))?;
        let mhz: f64 = line.split_once(':')?.1.trim().parse().ok()?;
        (mhz.is_finite() && mhz > 0.0).then_some(mhz)
    })
}

/// Mean number of running processes over 1, 5 and 15 minutes.
pub(super) fn load_average(roots: &Roots) -> Option<[f64; 3]> {
    let Some(text) = text(&roots.proc.join("loadavg")) else {
        // macOS has the number and no such file.
        let load = sysinfo::System::load_average().ok().filter(|_| cfg!(target_os = "macos"))?;
        return Some([load.one, load.five, load.fifteen]);
    };
    let mut numbers = text.split_whitespace().map_while(|n| n.parse::<f64>().ok());
    let load = [numbers.next()?, numbers.next()?, numbers.next()?];
    load.iter().all(|n| n.is_finite() && *n >= 0.0).then_some(load)
}
