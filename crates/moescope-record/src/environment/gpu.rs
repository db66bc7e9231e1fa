//! Clock and performance state of a GPU.

use super::{
    Card, Roots,
    nvidia::Nvidia,
    sysfs::{entries, name, number, text, word},
};

/// How fast a GPU runs. `None` where its driver does not tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct GpuState {
    /// Graphics clock, MHz.
    pub(crate) mhz: Option<f64>,
    /// Performance state, in the driver's words.
    pub(crate) state: Option<String>,
}

pub(super) fn state(card: &Card, roots: &Roots) -> GpuState {
    if card.is_nvidia() {
        return Nvidia::open(card).map(|nvidia| nvidia.state()).unwrap_or_default();
    }
    let folder = card.folder(roots);
    GpuState {
        mhz: dpm_mhz(card, roots)
            .or_else(|| sensor_mhz(card, roots))
            .or_else(|| intel_mhz(card, roots)),
        // amdgpu: `auto`, `high`, `manual`.
        state: word(&folder.join("power_dpm_force_performance_level")),
    }
}

/// amdgpu marks the level in use: `1: 1500Mhz *`.
fn dpm_mhz(card: &Card, roots: &Roots) -> Option<f64> {
    let levels = text(&card.folder(roots).join("pp_dpm_sclk"))?;
    let level = levels.lines().find_map(|line| line.trim().strip_suffix('*'))?;
    let (_, clock) = level.split_once(':')?;
    let mhz: f64 = clock.trim().to_ascii_lowercase().strip_suffix("mhz")?.trim().parse().ok()?;
    (mhz.is_finite() && mhz > 0.0).then_some(mhz)
}

/// A frequency among the card's sensors, Hz.
fn sensor_mhz(card: &Card, roots: &Roots) -> Option<f64> {
    let hz = card.sensors(roots).iter().find_map(|s| number(&s.join("freq1_input")))?;
    (hz > 0).then(|| hz as f64 / 1e6)
}

/// i915 keeps it beside the card's node.
fn intel_mhz(card: &Card, roots: &Roots) -> Option<f64> {
    let nodes = entries(&card.folder(roots).join("drm"));
    let cards = nodes.iter().filter(|node| name(node).starts_with("card"));
    let mhz = cards.flat_map(|node| number(&node.join("gt_act_freq_mhz"))).next()?;
    (mhz > 0).then_some(mhz as f64)
}
