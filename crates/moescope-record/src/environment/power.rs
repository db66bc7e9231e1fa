//! What the machine is fed by.

use super::sysfs::{Roots, entries, number, word};

/// `mains` or `battery`; `None` where the kernel shows no supply, as on desktops and servers.
///
/// A supply that is on line feeds the machine; else a battery does that discharges. Batteries of mice and the
/// like (`scope` is `Device`) feed none.
pub(super) fn source(roots: &Roots) -> Option<&'static str> {
    let mut battery = None;
    for supply in entries(&roots.sys.join("class/power_supply")) {
        if word(&supply.join("scope")).as_deref() == Some("Device") {
            continue;
        }
        match word(&supply.join("type")).as_deref() {
            Some("Battery") => match word(&supply.join("status")).as_deref() {
                Some("Discharging") => battery = Some("battery"),
                // It is fed by something, whether or not that is shown.
                Some("Charging" | "Full" | "Not charging") => battery = battery.or(Some("mains")),
                _ => {}
            },
            // USB-C chargers are supplies of their own.
            Some("Mains" | "USB") if number(&supply.join("online")) == Some(1) => {
                return Some("mains");
            }
            _ => {}
        }
    }
    battery
}
