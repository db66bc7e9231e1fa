//! Time on the device's own clock, where it has one.

use burn::tensor::{Device, ProfileDuration, ProfileOptions, TimingMethod};

use crate::ops;

/// A window of device time that is read once the device is done.
pub struct DeviceTime(Option<ProfileDuration>);

/// Does `work` and opens a window of device time over all it issues. On the CPU there is no other clock
/// than the wall's, and no window.
///
/// # Errors
///
/// The device refuses to open or close the window; the text says why.
pub fn with_device_time<O: Send + 'static>(
    device: &Device,
    work: impl FnOnce() -> O + Send,
) -> Result<(O, DeviceTime), String> {
    if ops::on_cpu(device) {
        return Ok((work(), DeviceTime(None)));
    }
    // Flushed, so that the window holds the whole pass; a synchronisation follows in any case.
    let options = ProfileOptions::default().flush();
    let (out, window) = device.profile_with(options, work).map_err(|e| format!("{e:?}"))?;
    Ok((out, DeviceTime(Some(window))))
}

impl DeviceTime {
    /// Nanoseconds on the device; `None` where it has no timestamps. Call after a synchronisation.
    pub fn nanoseconds(self) -> Option<u64> {
        let window = self.0.filter(|w| w.timing_method() == TimingMethod::Device)?;
        let ticks = cubecl::future::block_on(window.resolve())?;
        u64::try_from(ticks.duration().as_nanos()).ok()
    }
}
